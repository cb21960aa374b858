"""Forgetting a customer in Postgres, in one transaction that takes the locks that deciding takes, in the same order.

Deciding locks ids, then customers, then terminals. Here the customer's ids are read, locked in sorted order, and read
again under the customer's lock: if there are more by then, everything is let go and begun anew. Nothing of a terminal
is touched.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from shared.domain.archive import FORGOTTEN_AUTHOR, Erased, StoredLabel, forgotten_key
from shared.domain.canonical import label_digest
from shared.domain.errors import Transient
from shared.domain.identifiers import CustomerId, TransactionId
from shared.domain.ledger import FORGOTTEN_DIGEST
from shared.domain.surrogates import Surrogate

if TYPE_CHECKING:
    from psycopg import Connection

    from shared.adapters.postgres import PostgresConnection

ATTEMPTS: Final = 10
"""How often it is begun anew while the customer goes on paying; each attempt takes milliseconds."""

_TIMEOUTS: Final = "SELECT set_config('lock_timeout', '5s', false), set_config('statement_timeout', '60s', false)"
_IDS: Final = "SELECT transaction_id FROM tollgate.transactions WHERE customer_id = %s"
_LOCK_IDS: Final = """
SELECT transaction_id FROM tollgate.transaction_ids WHERE transaction_id = ANY(%s) ORDER BY transaction_id FOR UPDATE
"""
_LOCK_CUSTOMER: Final = "SELECT surrogate FROM tollgate.customer_features WHERE customer_id = %s FOR UPDATE"
_RENAME: Final = "UPDATE tollgate.transactions SET customer_id = %s WHERE customer_id = %s"
_FREE_IDS: Final = """
UPDATE tollgate.transaction_ids SET digest = %s, customer_id = NULL WHERE transaction_id = ANY(%s)
"""
_UNSIGN: Final = """
UPDATE tollgate.feedback_labels held SET label_digest = given.digest, author = given.author
FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::text[]) AS given(id, old, digest, author)
WHERE held.transaction_id = given.id AND held.label_digest = given.old
"""
_DROP_TILES: Final = "DELETE FROM tollgate.entity_tiles WHERE entity = %s AND entity_key = %s"
_DROP_CUSTOMER: Final = "DELETE FROM tollgate.customer_features WHERE customer_id = %s"
_EMPTY_LETTERS: Final = "UPDATE tollgate.dead_letters SET body = ''::bytea WHERE position(%s::bytea IN body) > 0"
_REMEMBER: Final = "INSERT INTO tollgate.forgotten (surrogate, forgotten_at_us, reason) VALUES (%s, %s, %s)"


class PostgresErasure:
    """Forgets customers over a connection that is opened for each."""

    def __init__(self, where: PostgresConnection, application_name: str) -> None:
        self._where = where
        self._application_name = application_name

    def erase(self, customer_id: CustomerId, reason: str, forgotten_at_us: int) -> Erased | None:
        """Forget a customer; None if none of this name is known."""
        from shared.adapters.postgres import connect  # noqa: PLC0415 - the driver is paid by those who connect
        from shared.adapters.postgres_errors import translated  # noqa: PLC0415

        with (
            translated("forgetting a customer"),
            connect(self._where, application_name=self._application_name, autocommit=True) as connection,
        ):
            connection.execute(_TIMEOUTS)
            for _ in range(ATTEMPTS):
                attempt = _Attempt(connection, customer_id)
                if attempt.run(reason, forgotten_at_us):
                    return attempt.erased
        raise Transient("forgetting a customer: transactions kept coming in; nothing was changed")


class _Attempt:
    """One transaction.

    Attributes:
        erased: What was done; None if the customer is not known.
    """

    def __init__(self, connection: Connection[Any], customer_id: CustomerId) -> None:
        self._connection = connection
        self._customer_id = customer_id
        self.erased: Erased | None = None

    def run(self, reason: str, forgotten_at_us: int) -> bool:
        """Do it; False if transactions came in between, and nothing was done."""
        from psycopg import Rollback  # noqa: PLC0415

        execute = self._connection.execute
        with self._connection.transaction():
            ids = self._ids()
            execute(_LOCK_IDS, [ids])
            row = execute(_LOCK_CUSTOMER, [self._customer_id]).fetchone()
            if row is None:
                return True
            if self._ids() != ids:
                raise Rollback
            surrogate = None if row[0] is None else Surrogate(row[0])
            execute(_DROP_TILES, [_customer_code(), self._customer_id])
            execute(_DROP_CUSTOMER, [self._customer_id])
            if surrogate is not None:  # a row without one was made by a unit of work that came to nothing
                self._erase(surrogate, ids, reason, forgotten_at_us)
            return True
        return False

    def _ids(self) -> list[TransactionId]:
        """The customer's transactions, as this moment shows them."""
        return sorted(row[0] for row in self._connection.execute(_IDS, [self._customer_id]).fetchall())

    def _erase(self, surrogate: Surrogate, ids: list[TransactionId], reason: str, forgotten_at_us: int) -> None:
        """Take the customer out of everything that stays."""
        execute = self._connection.execute
        execute(_RENAME, [forgotten_key(surrogate), self._customer_id])
        execute(_FREE_IDS, [bytes(FORGOTTEN_DIGEST), ids])
        n_labels = self._unsign(ids)
        quoted = json.dumps(self._customer_id).encode("ascii")
        n_letters = execute(_EMPTY_LETTERS, [quoted]).rowcount
        execute(_REMEMBER, [surrogate, forgotten_at_us, reason])
        self.erased = Erased(surrogate, len(ids), n_labels, n_letters)

    def _unsign(self, ids: list[TransactionId]) -> int:
        """Take the authors off the labels: who reports a fraud is often the customer.

        The number behind the word keeps labels apart that differ by their author alone.
        """
        from shared.adapters import postgres_archive_rows as rows  # noqa: PLC0415

        found = [rows.label_of(row) for row in self._connection.execute(rows.LABELS, [ids], binary=True).fetchall()]
        found.sort(key=lambda item: (item.label.transaction_id, item.customer_version or 0, item.digest))
        numbers: dict[TransactionId, int] = {}
        unsigned: list[StoredLabel] = []
        for item in found:
            name = item.label.transaction_id
            numbers[name] = numbers.get(name, 0) + 1
            label = replace(item.label, author=f"{FORGOTTEN_AUTHOR}-{numbers[name]}")
            unsigned.append(item._replace(label=label, digest=label_digest(label)))
        columns = [
            [item.label.transaction_id for item in found],
            [bytes(item.digest) for item in found],
            [bytes(item.digest) for item in unsigned],
            [item.label.author for item in unsigned],
        ]
        return self._connection.execute(_UNSIGN, columns).rowcount


def _customer_code() -> int:
    from shared.adapters.postgres_archive_rows import CUSTOMER_CODE  # noqa: PLC0415

    return CUSTOMER_CODE
