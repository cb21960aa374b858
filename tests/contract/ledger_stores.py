"""The kinds of ledger, each with a way to look at all that it stores as the tables of the fake."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import psycopg

from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_ledger import PostgresLedger, WiredLedger
from shared.adapters.postgres_ledger_pipelined import PipelinedLedger
from shared.domain.canonical import DIGEST_BYTES, Digest
from shared.domain.decision import STRICTNESS
from shared.domain.decision_record import Lateness
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.instants import US_PER_DAY
from shared.domain.labels import PRECEDENCE, Label, Verdict
from shared.domain.ledger import FORGOTTEN_DIGEST, DecisionRow, Labelled, LabelVersions, TransactionRow
from shared.domain.log_block import Head, LogBlock
from shared.domain.surrogates import SALT_BYTES, Surrogate
from shared.domain.transaction import Transaction
from shared.ports.ledger import Ledger
from shared.ports.models import Scorers
from shared.services.labelling import Labelling
from shared.services.scoring import Scoring
from tests.fakes.ledger import FakeLedger, StoredEntity, Tables
from tests.fakes.probes import FakeClock
from tests.fakes.scorers import FixedScorers
from tests.unit.domain.worlds import BASE_US
from tests.unit.shared.test_scoring import KEYS, POLICY

KINDS: Final = ("fake", "plain", "pipelined")
REAL: Final[Mapping[str, type[PostgresLedger | PipelinedLedger]]] = {
    "plain": PostgresLedger,
    "pipelined": PipelinedLedger,
}
FIRST_US: Final = BASE_US - US_PER_DAY
LAST_US: Final = BASE_US + 151 * US_PER_DAY
"""Event times that tests may use: there are partitions for them."""

_TABLES: Final = (
    "transaction_ids",
    "transactions",
    "predictions",
    "customer_features",
    "merchant_features",
    "entity_tiles",
    "feedback_labels",
    "outbox",
)


def salts_by_key(customers: Sequence[CustomerId]) -> list[bytes]:
    """Salts that depend on the customer alone, so that all kinds of ledger give the same ones."""
    return [hashlib.sha256(customer.encode()).digest()[:SALT_BYTES] for customer in customers]


class Writing(Ledger, Protocol):
    """A ledger of either kind, whose writer shows."""

    writer: str
    head: Head | None


class Store(Protocol):
    """Everything stored, and ledgers on it."""

    kind: str

    def ledger(self) -> Writing:
        """One more ledger; closed with the store."""
        ...

    def tables(self) -> Tables:
        """All that is stored now."""
        ...

    def forget(self, transaction_id: str) -> None:
        """Make the id one of a customer who was forgotten."""
        ...

    def damage(self, entity: Entity, key: str) -> None:
        """Change a byte of a stored header."""
        ...


class FakeStore:
    """Tables in memory."""

    def __init__(self) -> None:
        self.kind = "fake"
        self._tables = Tables()
        self._count = 0

    def ledger(self) -> FakeLedger:
        self._count += 1
        return FakeLedger(self._tables, f"test-{self._count}", salts_by_key)

    def tables(self) -> Tables:
        return self._tables

    def forget(self, transaction_id: str) -> None:
        self._tables.digests[TransactionId(transaction_id)] = FORGOTTEN_DIGEST

    def damage(self, entity: Entity, key: str) -> None:
        stored = self._tables.entities[entity, key]
        assert stored.header is not None
        stored.header = _damaged(stored.header)


class PostgresStore:
    """A database and one kind of ledger on it."""

    def __init__(self, kind: str, dsn: str) -> None:
        self.kind = kind
        self.where = PostgresConnection("DATABASE", dsn=dsn)
        self.admin = psycopg.connect(dsn, autocommit=True)
        self._ledgers: list[WiredLedger] = []
        self._count = itertools.count(1)

    def ledger(self, **options: Any) -> WiredLedger:
        options.setdefault("new_writer", lambda app: f"{app}-{next(self._count)}")
        ledger = REAL[self.kind](self.where, "test", **{"new_salts": salts_by_key, **options})
        self._ledgers.append(ledger)
        return ledger

    def tables(self) -> Tables:
        """Read everything; order of rows is that in which they were written, as the fake has it."""
        run = self.admin.execute
        tables = Tables()
        for identifier, digest, time_us, customer, terminal in run(
            "SELECT transaction_id, digest, event_time_us, customer_id, terminal_id FROM tollgate.transaction_ids"
        ):
            tables.digests[identifier] = digest
            if customer is not None:
                tables.known[identifier] = Labelled(CustomerId(customer), TerminalId(terminal), time_us)
        for row in run(
            "SELECT transaction_id, customer_id, terminal_id, amount_minor, currency, event_time_us,"
            " customer_version, terminal_version, flags FROM tollgate.transactions"
        ):
            tables.transactions[row[0]] = TransactionRow(Transaction(*row[:6]), row[6], row[7], Lateness(row[8]))
        for identifier, time_us, record, outcome, score, bundle in run(
            "SELECT transaction_id, event_time_us, record, outcome, score, bundle_digest FROM tollgate.predictions"
        ):
            tables.decisions[identifier] = DecisionRow(identifier, time_us, record, STRICTNESS[outcome], score, bundle)
        for identifier, digest, verdict, source, *values, customer_version, terminal_version in run(
            "SELECT transaction_id, label_digest, verdict, source, event_time_us, known_at_us, confidence, author,"
            " customer_version, terminal_version FROM tollgate.feedback_labels"
        ):
            label = Label(identifier, tuple(Verdict)[verdict], PRECEDENCE[source], *values)
            tables.labels[identifier, digest] = (
                label if customer_version is None else LabelVersions(label, digest, customer_version, terminal_version)
            )
        self._read_entities(tables)
        for writer, sequence, previous, root, count, leaves in run(
            "SELECT writer, sequence, previous, root, count, leaves FROM tollgate.log_blocks ORDER BY writer, sequence"
        ):
            split = tuple(Digest(leaves[place : place + DIGEST_BYTES]) for place in range(0, len(leaves), DIGEST_BYTES))
            tables.blocks.append(LogBlock(writer, sequence, previous, root, count, split))
        tables.outbox = [row[0] for row in run("SELECT transaction_id FROM tollgate.outbox ORDER BY outbox_id")]
        return tables

    def _read_entities(self, tables: Tables) -> None:
        run = self.admin.execute
        for key, header, salt, surrogate in run(
            "SELECT customer_id, header, salt, surrogate FROM tollgate.customer_features"
        ):
            tables.entities[Entity.CUSTOMER, key] = StoredEntity(salt, _named(surrogate), header)
        for key, header, surrogate in run("SELECT terminal_id, header, surrogate FROM tollgate.merchant_features"):
            tables.entities[Entity.TERMINAL, key] = StoredEntity(b"", _named(surrogate), header)
        for entity, key, start_us, version, data in run(
            "SELECT entity, entity_key, start_us, version, data FROM tollgate.entity_tiles ORDER BY start_us"
        ):
            name = (Entity.CUSTOMER, Entity.TERMINAL)[entity], key
            tables.entities[name].tiles[start_us] = (version, data)

    def forget(self, transaction_id: str) -> None:
        self.admin.execute(
            "UPDATE tollgate.transaction_ids SET digest = %s, customer_id = NULL WHERE transaction_id = %s",
            [FORGOTTEN_DIGEST, transaction_id],
        )

    def damage(self, entity: Entity, key: str) -> None:
        table, column = {
            Entity.CUSTOMER: ("customer_features", "customer_id"),
            Entity.TERMINAL: ("merchant_features", "terminal_id"),
        }[entity]
        found = self.admin.execute(f"SELECT header FROM tollgate.{table} WHERE {column} = %s", [key]).fetchone()
        assert found is not None
        self.admin.execute(
            f"UPDATE tollgate.{table} SET header = %s WHERE {column} = %s",
            [_damaged(found[0]), key],
        )

    def all_rows(self) -> dict[str, list[tuple[object, ...]]]:
        """Every column of every table, in an order that does not depend on where rows lie."""
        return {
            table: sorted(self.admin.execute(f"SELECT * FROM tollgate.{table}").fetchall(), key=repr)
            for table in (*_TABLES, "log_blocks")
        }

    def close(self) -> None:
        """Close everything, and leave nothing behind."""
        for ledger in self._ledgers:
            ledger.close()
        for table in _TABLES:
            self.admin.execute(f"DELETE FROM tollgate.{table}")
        self.admin.execute("TRUNCATE tollgate.log_blocks, tollgate.outbox RESTART IDENTITY")
        self.admin.close()


@contextmanager
def store_of(kind: str, dsn: str) -> Iterator[PostgresStore]:
    """A real store, empty before and after."""
    store = PostgresStore(kind, dsn)
    try:
        yield store
    finally:
        store.close()


def scoring(ledger: Ledger, scorers: Scorers | None = None) -> Scoring:
    """The deciding use case on a ledger."""
    return Scoring(ledger, scorers or FixedScorers(), policy=POLICY, keys=KEYS, clock=FakeClock())


def labelling(ledger: Ledger) -> Labelling:
    """The labelling use case on a ledger."""
    return Labelling(ledger, KEYS, FakeClock())


def _named(surrogate: str | None) -> Surrogate | None:
    return None if surrogate is None else Surrogate(surrogate)


def _damaged(header: bytes) -> bytes:
    return header[:-1] + bytes([header[-1] ^ 1])
