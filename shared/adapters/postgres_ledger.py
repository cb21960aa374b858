"""The ledger in Postgres: two round trips for a usual batch, whatever its size.

    round 1   BEGIN; claim ids; insert missing entities; lock customers, then terminals; read tiles newer than cached
    extra     only where there are repeats, labels that waited, or a cached state that is another life's or layout's
    round 2   write everything; COMMIT

`PostgresLedger` sends rounds with psycopg's public interface and is the reference; `PipelinedLedger`
(`postgres_ledger_pipelined`) sends the same statements faster. A ledger belongs to one thread.

Each connection is a writer of its own: the name of its chain of log blocks ends in 64 random bits, so a connection
whose last commit is in doubt never goes on from a head that may not exist. Whoever loses a connection claims the same
ids again, and finds repeats where the commit did happen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from types import MappingProxyType
from typing import Final, TypedDict, Unpack

import psycopg

from shared.adapters import postgres_ledger_statements as sql
from shared.adapters.entity_cache import CachedEntity, EntityCache
from shared.adapters.postgres import PostgresConnection
from shared.adapters.postgres_errors import meaning, translated
from shared.adapters.postgres_ledger_rows import decision_steps, label_of, label_steps
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.postgres_wire import PsycopgWire, Row, Step, Wire
from shared.domain.canonical import Digest
from shared.domain.entity_state import EntityState
from shared.domain.entity_state_codec import is_laid_out, read_state, refreshed
from shared.domain.entity_state_layout import BASE_LAYOUT, StateLayout
from shared.domain.errors import BrokenInvariant, TollgateError, Transient
from shared.domain.feature_view import Entity
from shared.domain.identifiers import CustomerId, TerminalId, TransactionId
from shared.domain.labels import Label
from shared.domain.ledger import (
    FORGOTTEN_DIGEST,
    Claim,
    Claimed,
    DecisionWrites,
    EntityChange,
    KnownEntity,
    LabelClaim,
    Labelled,
    LabelsClaimed,
    LabelWrites,
    Repeat,
)
from shared.domain.log_block import Head
from shared.domain.surrogates import SALT_BYTES, Surrogate
from shared.domain.transaction import Transaction

CACHE_BYTES: Final = 32 << 20
"""Memory for states: of some thousand entities with a full history, or some ten thousand with a short one. Two workers
and what they are besides then fit an instance of 512 MB (docs/stream.md)."""

PLANS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
    }
)
"""Session settings under which each statement is planned once, as nested loops over indexes.

Planning anew costs more than running, and statistics of tables that grow from nothing mislead: a plan made while a
table was empty would scan it. What is switched off only counts as dear, which must start neither the compiler of plans
nor parallel workers (30 ms for what takes one).
"""

type Observe = Callable[[str, float], None]
"""Told the name of a stage and how many seconds it took; called in the ledger's thread."""

type NewSalts = Callable[[Sequence[CustomerId]], Sequence[bytes]]
"""Makes the salts of customers that may be new, one for each."""

type NewWriter = Callable[[str], str]
"""Makes the name of a connection's chain of log blocks from the app's name; never the same one twice."""

_WRITER_BITS: Final = 64
_MAX_WRITER: Final = 64
_NOT_IN_WRITER: Final = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
_WHOLE: Final = -1
"""A version below every tile's: all are newer."""


def random_salts(customers: Sequence[CustomerId]) -> Sequence[bytes]:
    """Salts that nobody can guess."""
    drawn = os.urandom(SALT_BYTES * len(customers))
    return [drawn[place : place + SALT_BYTES] for place in range(0, len(drawn), SALT_BYTES)]


def random_writer(app: str) -> str:
    """A name that no other connection has: the app's, in the characters that such a name may have, and 64 bits."""
    prefix = _NOT_IN_WRITER.sub("-", app).strip("._-") or "writer"
    return f"{prefix[: _MAX_WRITER - 1 - _WRITER_BITS // 4]}-{os.urandom(_WRITER_BITS // 8).hex()}"


class _Stages:
    """Tells an observer how long each stage took; without one it does nothing."""

    __slots__ = ("_observe", "_since")

    def __init__(self, observe: Observe | None) -> None:
        self._observe = observe
        self._since = perf_counter() if observe is not None else 0.0

    def end(self, stage: str) -> None:
        """A stage is over, and the next one begins."""
        if self._observe is not None:
            now = perf_counter()
            self._observe(stage, now - self._since)
            self._since = now

    def begin(self) -> None:
        """A stage begins; what came before it is not counted."""
        if self._observe is not None:
            self._since = perf_counter()


class LedgerOptions(TypedDict, total=False):
    """What every ledger may be given; see `WiredLedger`."""

    new_salts: NewSalts
    new_writer: NewWriter
    cache_bytes: int
    observe: Observe | None


class WiredLedger:
    """The ledger over any wire; see the module."""

    def __init__(
        self,
        wire: Wire,
        *,
        app: str,
        new_salts: NewSalts = random_salts,
        new_writer: NewWriter = random_writer,
        cache_bytes: int = CACHE_BYTES,
        observe: Observe | None = None,
    ) -> None:
        """Connect nothing yet.

        Args:
            wire: Sends rounds of statements.
            app: Its name, for the writers' names.
            new_salts: Makes salts for new customers.
            new_writer: Makes the name of a connection's chain.
            cache_bytes: Bound of the memory for states.
            observe: Told how long each stage took.
        """
        self.wire = wire
        self.cache = EntityCache(cache_bytes)
        self.observe = observe
        self.new_salts = new_salts
        self.writer = ""
        self.head: Head | None = None
        self._app = app
        self._new_writer = new_writer
        self._in_use: list[tuple[Entity, str]] = []

    def close(self) -> None:
        """Close the connection and let go of the cache; the next unit of work opens another one."""
        self._forget()
        self.wire.session.close()

    @contextmanager
    def deciding(self) -> Iterator[DecidingUnit]:
        """A unit of work on transactions."""
        with self._unit():
            yield DecidingUnit(self)

    @contextmanager
    def labelling(self) -> Iterator[LabellingUnit]:
        """A unit of work on labels."""
        with self._unit():
            yield LabellingUnit(self)

    @contextmanager
    def _unit(self) -> Iterator[None]:
        """Leaves no trace of what was not written, neither in the database nor in the cache."""
        with translated("connecting to the database"):
            if self.wire.open():
                self._forget()
                self.writer = self._new_writer(self._app)
        try:
            yield
        except BaseException:
            # Only this unit's: others are as good as before, and to read all anew would make a busy time busier.
            for entity, key in self._in_use:
                self.cache.drop(entity, key)
            raise
        finally:
            self._in_use = []
            self.wire.rollback()

    def commit(self, steps: list[Step], doing: str) -> None:
        """Write and commit in one round.

        Raises:
            Transient: The database cannot do it now, or nobody knows whether it did; then the connection is closed.
            BrokenInvariant: The database refuses it; nothing was written.
        """
        steps.append((sql.COMMIT, ()))
        try:
            self.wire.run(steps)
        except psycopg.Error as error:
            is_lost = error.sqlstate is None and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
            if is_lost or not self.wire.session.is_open:
                self.close()
                raise Transient(f"{doing}: the connection was lost; it may or may not have been done") from error
            raise meaning(error, doing) from error
        except BaseException:
            self.close()
            raise

    def keep(self, changes: Sequence[EntityChange]) -> None:
        """Keep states that were committed just now."""
        for change in changes:
            self.cache.put(change.entity, change.key, CachedEntity(change.state, change.surrogate))

    def cached(self, entity: Entity, key: str) -> CachedEntity | None:
        """The state kept for an entity, which the unit of work uses from now on."""
        self._in_use.append((entity, key))
        return self.cache.get(entity, key)

    def _forget(self) -> None:
        self.cache.clear()
        self.head = None
        self.writer = ""


class _EntityReading:
    """Reads the states of entities while it locks them: what to ask, and what the answers mean."""

    def __init__(
        self,
        ledger: WiredLedger,
        customers: Collection[CustomerId],
        terminals: Collection[TerminalId],
        missing: type[TollgateError],
    ) -> None:
        self._ledger = ledger
        self._missing = missing
        self._layout = BASE_LAYOUT
        self._customers = sorted(customers)
        self._terminals = sorted(terminals)
        self._asked: list[tuple[Entity, str, CachedEntity | None]] = [
            (Entity.CUSTOMER, key, ledger.cached(Entity.CUSTOMER, key)) for key in self._customers
        ]
        self._asked += [(Entity.TERMINAL, key, ledger.cached(Entity.TERMINAL, key)) for key in self._terminals]

    def insertions(self) -> list[Step]:
        """Insert entities that may be new, which those in the cache are not, and read the layout that they get.

        The layout is read after ids were claimed, by a later statement: whoever raises it then waits for all that had
        claimed something (`postgres_views`), so behind that no entity is made with less.
        """
        steps: list[Step] = []
        new = [CustomerId(key) for entity, key, cached in self._asked if entity is Entity.CUSTOMER and cached is None]
        if new:
            steps.append((sql.NEW_CUSTOMERS, (new, list(self._ledger.new_salts(new)))))
        keys = [key for entity, key, cached in self._asked if entity is Entity.TERMINAL and cached is None]
        if keys:
            steps.append((sql.NEW_TERMINALS, (keys,)))
        return [*steps, (sql.LAYOUT, ())] if steps else []

    def laid_out(self, rows: list[Row]) -> None:
        """Take the layout that `insertions` read."""
        self._layout = BASE_LAYOUT.joined(StateLayout.named(*row) for row in rows)

    def steps(self) -> list[Step]:
        """Lock all rows, and then read what is newer than the cache."""
        versions = [_WHOLE if cached is None else cached.state.header.version for _, _, cached in self._asked]
        return [
            (sql.LOCK_CUSTOMERS, (self._customers,)),
            (sql.LOCK_TERMINALS, (self._terminals,)),
            (sql.TILES, self._tile_keys(self._asked, versions)),
        ]

    def known(
        self, customers: list[Row], terminals: list[Row], tiles: list[Row]
    ) -> dict[tuple[Entity, str], KnownEntity]:
        """The locked rows of all entities with their states.

        Raises:
            psycopg.Error: As for any round; there is one more where a cached state is of another life of its entity.
            TollgateError: The one given as `missing`: a row is not there, because its customer was forgotten since the
                cache saw it or the unit inserted it.
            BrokenInvariant: Stored bytes cannot be read.
        """
        rows: dict[tuple[Entity, str], Row] = {(Entity.CUSTOMER, row[0]): row for row in customers}
        rows.update({(Entity.TERMINAL, row[0]): row for row in terminals})
        newer = self._by_place(tiles, len(self._asked))
        again = []
        for place, (entity, key, cached) in enumerate(self._asked):
            row = rows.get((entity, key))
            if row is None:
                raise self._missing(f"the row of a {entity} went while it was asked for")
            if cached is not None and not _is_same_life(cached, row):
                again.append(place)
        if again:
            asked = [(entity, key, None) for entity, key, _ in (self._asked[place] for place in again)]
            (found,) = self._ledger.wire.run([(sql.TILES, self._tile_keys(asked, [_WHOLE] * len(asked)))])
            whole = self._by_place(found, len(asked))
            for place, entry, data in zip(again, asked, whole, strict=True):
                self._asked[place], newer[place] = entry, data
        known = {}
        for (entity, key, cached), data in zip(self._asked, newer, strict=True):
            _, version, header, surrogate, salt = rows[entity, key]
            if cached is not None and cached.state.header.version == version:
                known[entity, key] = KnownEntity(cached.state, cached.surrogate, salt)
                continue
            state = self._state(entity, cached, header, data)
            name = None if surrogate is None else Surrogate(surrogate)
            known[entity, key] = KnownEntity(state, name, salt)
            if name is not None:
                self._ledger.cache.put(entity, key, CachedEntity(state, name))
        return known

    def _state(
        self, entity: Entity, cached: CachedEntity | None, header: bytes | None, tiles: list[bytes]
    ) -> EntityState:
        if header is None:
            return EntityState.empty(self._layout, entity)
        if cached is None:
            return read_state(header, tiles)
        return refreshed(cached.state, header, tiles)

    @staticmethod
    def _tile_keys(
        asked: Sequence[tuple[Entity, str, object]], versions: list[int]
    ) -> tuple[list[int], list[str], list[int]]:
        return [sql.ENTITY_CODES[entity] for entity, _, _ in asked], [key for _, key, _ in asked], versions

    @staticmethod
    def _by_place(rows: list[Row], count: int) -> list[list[bytes]]:
        found: list[list[bytes]] = [[] for _ in range(count)]
        for place, data in rows:
            found[place - 1].append(data)
        return found


def _is_same_life(cached: CachedEntity, row: Row) -> bool:
    """Whether a cached state is an earlier moment of what a row holds now.

    It is not if the customer was forgotten and came back, for then another salt made another surrogate, if the
    database was set back to an earlier time, or if state was made to reach further back meanwhile.
    """
    _, version, header, surrogate, _ = row
    known = cached.state.header
    return bool(surrogate == cached.surrogate and version >= known.version and is_laid_out(header, known))


class DecidingUnit:
    """A unit of work on transactions."""

    def __init__(self, ledger: WiredLedger) -> None:
        self._ledger = ledger
        self._stages = _Stages(ledger.observe)
        self._known: dict[tuple[Entity, str], KnownEntity] = {}

    @property
    def writer(self) -> str:
        """Name of this connection's chain."""
        return self._ledger.writer

    @property
    def head(self) -> Head | None:
        """Its last block that was committed."""
        return self._ledger.head

    def claim(self, claims: Sequence[Claim]) -> Claimed:
        """Claim, lock and read: one round, and one more where there are repeats or labels that waited."""
        if not claims:
            return Claimed(frozenset(), {}, {}, {}, {})
        self._stages.begin()
        wire = self._ledger.wire
        customers = {claim.transaction.customer_id for claim in claims}
        terminals = {claim.transaction.terminal_id for claim in claims}
        with translated("claiming transactions"):
            reading = _EntityReading(self._ledger, customers, terminals, Transient)
            insertions = reading.insertions()
            steps: list[Step] = [(sql.BEGIN, ()), (sql.CLAIM, _claim_columns(claims)), *insertions, *reading.steps()]
            self._stages.end("prepare claim")
            answers = wire.run(steps)
            self._stages.end("claim")
            if insertions:
                reading.laid_out(answers[1 + len(insertions)])
            fresh = {TransactionId(row[0]) for row in answers[1]}
            labelled = [row[0] for row in answers[1] if row[1]]
            repeated = [claim.transaction for claim in claims if claim.transaction.transaction_id not in fresh]
            repeats, waiting = self._extra(repeated, labelled) if repeated or labelled else ({}, {})
            known = self._known = reading.known(*answers[-3:])
        claimed = Claimed(
            fresh=frozenset(fresh),
            repeats=repeats,
            customers={key: known[Entity.CUSTOMER, key] for key in customers},
            terminals={key: known[Entity.TERMINAL, key] for key in terminals},
            waiting=waiting,
        )
        self._stages.end("read")
        return claimed

    def write(self, writes: DecisionWrites) -> None:
        """Write and commit in one round."""
        self._stages.begin()
        head = None if writes.block is None else Head.of(writes.block)
        steps = decision_steps(writes, head)
        written = {(change.entity, change.key) for change in writes.entities}
        unused = [name for name, known in self._known.items() if known.surrogate is None and name not in written]
        steps += _removals(unused)
        self._stages.end("prepare write")
        self._ledger.commit(steps, "writing decisions")
        self._stages.end("write")
        if head is not None:
            self._ledger.head = head
        self._ledger.keep(writes.entities)
        self._stages.end("keep")

    def _extra(
        self, repeated: list[Transaction], labelled: list[str]
    ) -> tuple[dict[TransactionId, Repeat], dict[TransactionId, tuple[Label, ...]]]:
        """What is stored of repeats and of labels that waited, in one round."""
        run = self._ledger.wire.run
        span = _span([transaction.event_time_us for transaction in repeated])
        asked = [transaction.transaction_id for transaction in repeated]
        held, labels = run([(sql.REPEATS, (asked, *span)), (sql.WAITING, (labelled,))])
        # A conflicting body may have another event time than the one that claimed the id: look where that one is.
        elsewhere = [row for row in held if row[2] is not None and not span[0] <= row[2] <= span[1]]
        if elsewhere:
            asked = [row[0] for row in elsewhere]
            (found,) = run([(sql.REPEATS, (asked, *_span([row[2] for row in elsewhere])))])
            held += found
        self._stages.end("repeats and waiting labels")
        repeats = {TransactionId(row[0]): Repeat(Digest(row[1]), row[3]) for row in held}
        waiting: dict[TransactionId, list[tuple[int, bytes, Label]]] = {}
        for row in labels:
            label = label_of(row)
            waiting.setdefault(label.transaction_id, []).append((label.known_at_us, row[1], label))
        return repeats, {
            identifier: tuple([label for _, _, label in sorted(items, key=lambda item: item[:2])])
            for identifier, items in waiting.items()
        }


class LabellingUnit:
    """A unit of work on labels."""

    def __init__(self, ledger: WiredLedger) -> None:
        self._ledger = ledger
        self._stages = _Stages(ledger.observe)
        self._known: dict[tuple[Entity, str], KnownEntity] = {}

    def claim(self, claims: Sequence[LabelClaim]) -> LabelsClaimed:
        """Claim in one round; lock and read in a second one, where a transaction is known."""
        if not claims:
            return LabelsClaimed(frozenset(), {}, frozenset(), {}, {})
        self._stages.begin()
        wire = self._ledger.wire
        keys = [(claim.label.transaction_id, claim.digest) for claim in claims]
        ids = sorted({identifier for identifier, _ in keys})
        with translated("claiming labels"):
            _, _, rows, held = wire.run(
                [
                    (sql.BEGIN, ()),
                    (sql.CLAIM_LABELLED, (ids,)),
                    (sql.LABELLED, (ids,)),
                    (sql.LABELS_HELD, ([identifier for identifier, _ in keys], [digest for _, digest in keys])),
                ]
            )
            self._stages.end("claim")
            known = {
                TransactionId(row[0]): Labelled(CustomerId(row[3]), TerminalId(row[4]), row[2])
                for row in rows
                if row[1] != FORGOTTEN_DIGEST
            }
            customers = {item.customer_id for item in known.values()}
            terminals = {item.terminal_id for item in known.values()}
            if known:
                # Nothing would insert a row that is missing here, so no retry brings it back.
                reading = _EntityReading(self._ledger, customers, terminals, BrokenInvariant)
                self._known = reading.known(*wire.run(reading.steps()))
        claimed = LabelsClaimed(
            fresh=frozenset(set(keys) - {(TransactionId(row[0]), Digest(row[1])) for row in held}),
            known=known,
            forgotten=frozenset(TransactionId(row[0]) for row in rows if row[1] == FORGOTTEN_DIGEST),
            customers={key: self._known[Entity.CUSTOMER, key] for key in customers},
            terminals={key: self._known[Entity.TERMINAL, key] for key in terminals},
        )
        self._stages.end("read")
        return claimed

    def write(self, writes: LabelWrites) -> None:
        """Write and commit in one round."""
        self._stages.begin()
        steps = label_steps(writes)
        self._stages.end("prepare write")
        self._ledger.commit(steps, "writing labels")
        self._stages.end("write")
        self._ledger.keep(writes.entities)
        self._stages.end("keep")


class PostgresLedger(WiredLedger):
    """The ledger on psycopg's public interface."""

    def __init__(
        self,
        where: PostgresConnection,
        app: str,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        **options: Unpack[LedgerOptions],
    ) -> None:
        """Connect nothing yet.

        Args:
            where: What `parse_postgres` returned.
            app: Name of the app.
            settings: Session settings of Postgres that differ from `TIMEOUTS` and `PLANS`.
            options: As for `WiredLedger`.
        """
        super().__init__(PsycopgWire(PostgresSession(where, app, {**PLANS, **settings})), app=app, **options)


def _span(times_us: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest of some times; nothing lies between those of none."""
    return (min(times_us), max(times_us)) if times_us else (0, -1)


def _claim_columns(claims: Sequence[Claim]) -> tuple[list[str], list[bytes], list[int], list[str], list[str]]:
    ordered = [claim.transaction for claim in claims]
    return (
        [item.transaction_id for item in ordered],
        [claim.digest for claim in claims],
        [item.event_time_us for item in ordered],
        [item.customer_id for item in ordered],
        [item.terminal_id for item in ordered],
    )


def _removals(unused: Sequence[tuple[Entity, str]]) -> list[Step]:
    """Delete rows that were inserted for claims which turned out to be no fresh ones: they leave no trace."""
    statements = {
        Entity.CUSTOMER: sql.DELETE_UNUSED_CUSTOMERS,
        Entity.TERMINAL: sql.DELETE_UNUSED_TERMINALS,
    }
    steps: list[Step] = []
    for entity, statement in statements.items():
        keys = sorted(key for kind, key in unused if kind is entity)
        if keys:
            steps.append((statement, (keys,)))
    return steps
