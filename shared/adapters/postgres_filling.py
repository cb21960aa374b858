"""Filling entity state in Postgres: raise the horizon of a group, read what it lacks, put it in, a few rows at a time.

Locks are those that deciding takes, in the same order, for a few dozen entities of one kind and for as long as it
takes to read their tiles and write what is new. What they lack is read outside any lock and by a connection of its own:
raw transactions have no index by terminal, so a group costs one look at the partitions of the missing span. That it is
read after the raise was committed is what makes it whole: whatever is committed later was folded under the new horizon,
and labels that came since are read again under the lock.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg

from shared.adapters.postgres_archive_rows import LABELS, label_of
from shared.adapters.postgres_errors import translated
from shared.adapters.postgres_ledger_statements import ENTITY_CODES
from shared.adapters.postgres_session import PostgresSession
from shared.domain.entity_state import EntityState, Folded, Header, LaterLabel
from shared.domain.entity_state_codec import header_bytes, read_header, read_state, tile_bytes
from shared.domain.entity_state_filling import Past, filled, missing, raised
from shared.domain.errors import BrokenInvariant, Conflict, Transient
from shared.domain.feature_view import Entity
from shared.domain.features import PastTransaction
from shared.domain.identifiers import TransactionId
from shared.ports.views import Filled

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.adapters.postgres_session import Connection
    from shared.domain.entity_state_layout import Span
    from shared.domain.labels import Label

AT_ONCE: Final = 64
"""Entities whose rows are locked at once: some 10 ms of work."""

EVENTS_AT_ONCE: Final = 2_000
"""Transactions put in under one lock, unless a single entity has more."""

FETCH_ROWS: Final = 2_000
WAIT_S: Final = 120.0
"""How long writers that began before a view was declared are waited for; their transactions take milliseconds, and
those of a process that stands still are ended by the server after half a minute."""

POLL_S: Final = 0.2

_BOUNDS: Final = {"statement_timeout": "600s", "idle_in_transaction_session_timeout": "600s"}
"""Of the connection that reads: a look at a span of raw transactions takes what it takes."""

# The key is "tollfill" in ASCII.
_ALONE: Final = "SELECT pg_try_advisory_lock(x'746f6c6c66696c6c'::bigint)"
_NO_LONGER_ALONE: Final = "SELECT pg_advisory_unlock(x'746f6c6c66696c6c'::bigint)"

_SNAPSHOT: Final = "SELECT pg_current_snapshot()::text"
_STILL_OPEN: Final = """
SELECT count(*) FROM pg_snapshot_xip(%s::pg_snapshot) AS open_(id)
WHERE NOT pg_visible_in_snapshot(open_.id, pg_current_snapshot())
"""


class _Statements(NamedTuple):
    """What differs between customers and terminals."""

    total: str
    following: str
    lock: str
    write: str
    past: str
    later: str


def _statements(table: str, key: str, version: str) -> _Statements:
    return _Statements(
        total=f"SELECT count(*) FROM tollgate.{table}",  # noqa: S608 - constants, here and below
        following=f"""
SELECT {key}, header FROM tollgate.{table} WHERE {key} > %s AND header IS NOT NULL ORDER BY {key} LIMIT %s
""",  # noqa: S608
        lock=f"""
SELECT {key}, header FROM tollgate.{table} WHERE {key} = ANY(%s) AND header IS NOT NULL
ORDER BY {key} FOR NO KEY UPDATE
""",  # noqa: S608
        write=f"""
UPDATE tollgate.{table} held SET header = given.header
FROM unnest(%s::text[], %s::bytea[]) AS given(key, header) WHERE held.{key} = given.key
""",  # noqa: S608
        past=f"""
SELECT t.{key}, t.transaction_id, t.event_time_us, t.amount_minor
FROM unnest(%(keys)s::text[], %(since)s::int8[], %(until)s::int8[]) AS given(key, since_us, until_us)
JOIN tollgate.transactions t ON t.{key} = given.key
    AND t.event_time_us >= given.since_us AND t.event_time_us < given.until_us
WHERE t.event_time_us >= %(first)s AND t.event_time_us < %(last)s
ORDER BY t.{key}, t.event_time_us, t.transaction_id
""",  # noqa: S608
        later=f"{LABELS} AND {version} > %s",
    )


_OF: Final[Mapping[Entity, _Statements]] = {
    Entity.CUSTOMER: _statements("customer_features", "customer_id", "customer_version"),
    Entity.TERMINAL: _statements("merchant_features", "terminal_id", "terminal_version"),
}

_TILES: Final = """
SELECT entity_key, data FROM tollgate.entity_tiles WHERE entity = %s AND entity_key = ANY(%s) ORDER BY entity_key
"""
_WRITE_TILES: Final = """
INSERT INTO tollgate.entity_tiles (entity, entity_key, start_us, version, data)
SELECT %s, given.* FROM unnest(%s::text[], %s::int8[], %s::int8[], %s::bytea[]) AS given
ON CONFLICT (entity, entity_key, start_us) DO UPDATE SET version = excluded.version, data = excluded.data
"""
_DELETE_TILES: Final = """
DELETE FROM tollgate.entity_tiles t USING unnest(%s::text[], %s::int8[]) AS given(key, start_us)
WHERE t.entity = %s AND t.entity_key = given.key AND t.start_us = given.start_us
"""


class _Lacking(NamedTuple):
    """An entity whose horizon was raised, with what it lacks.

    Attributes:
        key: Its identifier.
        header: Its header when the raise was committed.
        events: What is stored of the span that it lacks, without labels.
    """

    key: str
    header: Header
    events: Sequence[PastTransaction]


class PostgresStateFilling:
    """Fills over two connections: one writes, and reads under locks; one reads what is missing."""

    def __init__(self, where: PostgresConnection, app: str, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        """Connect nothing yet.

        Args:
            where: What `parse_postgres` returned.
            app: Who fills, as the database shows it.
            settings: Session settings of Postgres for the connection that writes, beside and above the usual ones.
        """
        self._writing = PostgresSession(where, f"{app}-filling", settings)
        self._reading = PostgresSession(where, f"{app}-filling-reads", _BOUNDS)

    def close(self) -> None:
        """Close both connections."""
        self._writing.close()
        self._reading.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While this is held nobody else fills; the writing connection holds the lock and is closed in the end."""
        with closing(self._writing):
            with translated("looking whether somebody fills"):
                (is_free,) = self._writing.connection.execute(_ALONE).fetchone() or (False,)
            if not is_free:
                raise Conflict("view", "somebody else is filling entity state just now")
            try:
                yield
            finally:
                self._no_longer_alone()

    def _no_longer_alone(self) -> None:
        """Let go of the lock now: of a connection that is closed the server does so at a moment of its own."""
        if self._writing.is_open:
            with suppress(psycopg.Error):
                self._writing.connection.execute(_NO_LONGER_ALONE)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction on the connection that holds the lock; the session's own may begin on another one."""
        connection = self._writing.connection
        with connection.transaction():
            yield connection

    def outlast_writers(self) -> None:
        """Wait for all transactions that are open now: who makes an entity has claimed an id before it asks."""
        deadline_s = time.monotonic() + WAIT_S
        with translated("waiting for writers"):
            connection = self._writing.connection
            (snapshot,) = connection.execute(_SNAPSHOT).fetchone() or ("",)
            while (connection.execute(_STILL_OPEN, [snapshot]).fetchone() or (0,))[0]:
                if time.monotonic() > deadline_s:
                    raise Transient(f"transactions that began before are still open after {WAIT_S:.0f} s")
                time.sleep(POLL_S)

    def count(self, entity: Entity) -> int:
        """How many entities of a kind there are; reads them all."""
        with translated("counting entities"):
            (found,) = self._writing.connection.execute(_OF[entity].total).fetchone() or (0,)
        return int(found)

    def fill(self, entity: Entity, span: Span, after: str, limit: int) -> Filled | None:
        """Bring the next entities to a layout."""
        with translated("filling entity state"):
            rows = self._writing.connection.execute(_OF[entity].following, [after, limit]).fetchall()
            if not rows:
                return None
            headers = {key: read_header(data)[0] for key, data in rows}
            short = [key for key, header in headers.items() if header.horizon_us < span.horizon_us]
            lacking = {key: header for key, header in headers.items() if header.filled_us is not None}
            for keys in _parts(short, AT_ONCE):
                lacking |= self._raise(entity, span, keys)
            count = 0
            for part in _batches(self._lacking(entity, lacking)):
                count += self._fill(entity, span, part)
            return Filled(rows[-1][0], len(rows), count)

    def _raise(self, entity: Entity, span: Span, keys: Sequence[str]) -> dict[str, Header]:
        """Let nothing be dropped any more that the layout needs; the headers of those that lack something now."""
        with self._transaction() as connection:
            found = connection.execute(_OF[entity].lock, [keys]).fetchall()
            before = {key: read_header(data) for key, data in found}
            after = {key: raised(header, span) for key, (header, _) in before.items()}
            data = [header_bytes(after[key], before[key][1]) for key in after]
            connection.execute(_OF[entity].write, [list(after), data])
        return {key: header for key, header in after.items() if header.filled_us is not None}

    def _lacking(self, entity: Entity, headers: Mapping[str, Header]) -> Iterator[_Lacking]:
        """Each of the entities with what it lacks, in the order of keys."""
        spans = {key: span for key, header in headers.items() if (span := missing(header)) and span[0] < span[1]}
        rest = iter(sorted(headers))
        if spans:
            values = {
                "keys": list(spans),
                "since": [since_us for since_us, _ in spans.values()],
                "until": [until_us for _, until_us in spans.values()],
                "first": min(since_us for since_us, _ in spans.values()),
                "last": max(until_us for _, until_us in spans.values()),
            }
            with self._reading.transaction() as connection, connection.cursor("past", binary=True) as cursor:
                cursor.itersize = FETCH_ROWS
                cursor.execute(_OF[entity].past, values)
                for key, rows in groupby(cursor, key=itemgetter(0)):
                    events = [PastTransaction(TransactionId(name), at, amount) for _, name, at, amount in rows]
                    for other in rest:
                        if other == key:
                            break
                        yield _Lacking(other, headers[other], ())
                    yield _Lacking(key, headers[key], events)
        for key in rest:
            yield _Lacking(key, headers[key], ())

    def _fill(self, entity: Entity, span: Span, part: Sequence[_Lacking]) -> int:
        """Put in what some entities lack; how many transactions."""
        labels = self._labels(LABELS, [[event.transaction_id for item in part for event in item.events]])
        pasts = {item.key: Past(item.header, _labelled(item.events, labels)) for item in part}
        since = {item.key: item.header for item in part}
        with self._transaction() as connection:
            headers: dict[str, bytes] = dict(connection.execute(_OF[entity].lock, [list(pasts)]).fetchall())
            tiles: dict[str, list[bytes]] = {}
            for key, data in connection.execute(_TILES, [ENTITY_CODES[entity], list(headers)]):
                tiles.setdefault(key, []).append(data)
            done: dict[str, Folded] = {}
            for key, header in headers.items():
                state = read_state(header, tiles.get(key, ()))
                if state.header.horizon_us < span.horizon_us:
                    raise BrokenInvariant(
                        f"the horizon of a {entity}'s state was lowered while it was filled: a writer of an earlier"
                        " release is running; bring every app to this one and run it again"
                    )
                if state.header.filled_us is not None:  # else it is another life of a customer, with nothing missing
                    later = self._later(entity, state, since[key], pasts[key])
                    done[key] = filled(state, pasts[key], later)
            _write(connection, entity, done)
        return sum(len(pasts[key].events) for key in done)

    def _later(self, entity: Entity, state: EntityState, before: Header, past: Past) -> list[LaterLabel]:
        """Labels of what was missing that raised the version since the raise; called under the lock."""
        if state.header.version == before.version or not past.events:
            return []
        times = {event.transaction_id: event.event_time_us for event in past.events}
        found = self._labels(_OF[entity].later, [list(times), before.version])
        return [LaterLabel(times[name], label) for name, labels in found.items() for label in labels]

    def _labels(self, statement: str, values: Sequence[object]) -> dict[TransactionId, list[Label]]:
        """Labels that were folded, by transaction."""
        found: dict[TransactionId, list[Label]] = {}
        for row in self._writing.connection.execute(statement, values, binary=True):
            stored = label_of(row)
            if stored.customer_version is not None:
                found.setdefault(stored.label.transaction_id, []).append(stored.label)
        return found


def _write(connection: Connection, entity: Entity, done: Mapping[str, Folded]) -> None:
    """Write what became of locked entities; their versions stay, and tiles are of the version that they belong to."""
    data = [header_bytes(folded.state.header, len(folded.state.tiles)) for folded in done.values()]
    connection.execute(_OF[entity].write, [list(done), data])
    removed = [(key, start_us) for key, folded in done.items() for start_us in folded.removed]
    connection.execute(
        _DELETE_TILES, [[key for key, _ in removed], [start_us for _, start_us in removed], ENTITY_CODES[entity]]
    )
    changed = [(key, folded.state.header.version, tile) for key, folded in done.items() for tile in folded.changed]
    values: list[Any] = [
        [key for key, _, _ in changed],
        [tile.start_us for _, _, tile in changed],
        [version for _, version, _ in changed],
        [tile_bytes(tile) for _, _, tile in changed],
    ]
    connection.execute(_WRITE_TILES, [ENTITY_CODES[entity], *values])


def _labelled(
    events: Iterable[PastTransaction], labels: Mapping[TransactionId, Sequence[Label]]
) -> list[PastTransaction]:
    """Events with their labels."""
    return [
        PastTransaction(
            event.transaction_id, event.event_time_us, event.amount_minor, tuple(labels.get(event.transaction_id, ()))
        )
        for event in events
    ]


def _parts(keys: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def _batches(found: Iterator[_Lacking]) -> Iterator[list[_Lacking]]:
    """Entities in batches that are filled under one lock each."""
    batch: list[_Lacking] = []
    n_events = 0
    for item in found:
        if batch and (len(batch) == AT_ONCE or n_events + len(item.events) > EVENTS_AT_ONCE):
            yield batch
            batch, n_events = [], 0
        batch.append(item)
        n_events += len(item.events)
    if batch:
        yield batch
