"""Rounds of statements through libpq itself: psycopg opens the connection, and its `pq` layer does the rest.

What psycopg does for each statement (finding dumpers, counting what to prepare, building cursors and loaders) costs
more than the statement, so here each has its types written down, its parameters go out as binary arrays and its answers
are read by position. Nothing waits but for the socket, with a deadline, and reads while it still sends: a batch larger
than both socket buffers would otherwise stop both sides. How it waits is the caller's affair (`waiting`).

Source: PostgreSQL 16, "Pipeline Mode" and "Asynchronous Command Processing" of libpq; the binary form of an array is
that of `array_send` (dimensions, null flag, element type, length and lower bound, then length and bytes of each).
"""

from __future__ import annotations

import select
import struct
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Any, Final

import numpy as np
import psycopg
from psycopg import pq

from shared.adapters.postgres_errors import is_stale
from shared.adapters.postgres_ledger_statements import ROLLBACK, Kind, Statement
from shared.adapters.postgres_session import Connection, PostgresSession
from shared.adapters.postgres_wire import Row, Step
from shared.adapters.waiting import BLOCKING, Waits

DEADLINE_S: Final = 30.0
"""Longest a round may take: beyond the bounds that the server keeps itself, so only a server that is gone meets it."""

_OIDS: Final = {
    Kind.BOOL: 16,
    Kind.BYTES: 17,
    Kind.INT8: 20,
    Kind.INT2: 21,
    Kind.INT4: 23,
    Kind.TEXT: 25,
    Kind.FLOAT8: 701,
}
"""Types of elements (`pg_type.dat`); they never change."""

_FIXED: Final = {Kind.INT2: "h", Kind.INT4: "i", Kind.INT8: "q", Kind.FLOAT8: "d"}
"""Fixed-width types as codes of `struct`."""

_VECTORISED_FROM: Final = 40
"""Values from which numpy is faster than one `struct` call each (measured)."""

_EMPTY: Final = struct.Struct("!iii").pack
_ARRAY: Final = struct.Struct("!iiIii").pack
_LENGTH: Final = struct.Struct("!i").pack
_DONE: Final = frozenset((pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK))
_MOST_GAPS: Final = 2
_READ: Final = select.POLLIN
_BOTH: Final = select.POLLIN | select.POLLOUT

type _Encode = Callable[[Any], bytes]
type _Decode = Callable[[bytes], Any]


def _variable_array(kind: Kind) -> Callable[[Sequence[bytes]], bytes]:
    """Encodes arrays of values of any length."""
    empty, alone = _EMPTY(0, 0, _OIDS[kind]), _ARRAY(1, 0, _OIDS[kind], 1, 1)

    def encode(values: Sequence[bytes]) -> bytes:
        if len(values) == 1:  # most batches of a calm hour
            return b"".join((alone, _LENGTH(len(values[0])), values[0]))
        if not values:
            return empty
        parts = [_ARRAY(1, 0, _OIDS[kind], len(values), 1)]
        for value in values:
            parts += (_LENGTH(len(value)), value)
        return b"".join(parts)

    return encode


_bytes_array: Final = _variable_array(Kind.BYTES)
_encoded_text_array: Final = _variable_array(Kind.TEXT)


def _text_array(values: Sequence[str]) -> bytes:
    return _encoded_text_array([value.encode() for value in values])


def _fixed_array(kind: Kind) -> _Encode:
    """Encodes arrays of a fixed-width type."""
    oid, code = _OIDS[kind], _FIXED[kind]
    width = struct.calcsize(f"!{code}")
    one = struct.Struct(f"!i{code}").pack
    record = np.dtype([("length", ">i4"), ("value", np.dtype(code).newbyteorder(">"))])
    empty, alone = _EMPTY(0, 0, oid), _ARRAY(1, 0, oid, 1, 1)

    def encode(values: Sequence[float]) -> bytes:
        count = len(values)
        if count == 1:
            return alone + one(width, values[0])
        if not count:
            return empty
        if count < _VECTORISED_FROM:
            return _ARRAY(1, 0, oid, count, 1) + b"".join([one(width, value) for value in values])
        columns = np.empty(count, record)
        columns["length"] = width
        columns["value"] = values
        return _ARRAY(1, 0, oid, count, 1) + columns.tobytes()

    return encode


_ARRAYS: Final[dict[Kind, _Encode]] = {
    Kind.BYTES: _bytes_array,
    Kind.TEXT: _text_array,
    **{kind: _fixed_array(kind) for kind in _FIXED},
}
_SCALARS: Final[dict[Kind, _Encode]] = {
    Kind.BYTES: bytes,
    Kind.TEXT: str.encode,
    **{kind: struct.Struct(f"!{code}").pack for kind, code in _FIXED.items()},
}


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


_DECODE: Final[dict[Kind, _Decode]] = {
    Kind.BOOL: b"\x01".__eq__,
    Kind.BYTES: bytes,
    Kind.TEXT: bytes.decode,
    Kind.INT2: _integer,
    Kind.INT4: _integer,
    Kind.INT8: _integer,
}


class _Prepared:
    """A statement with its codecs."""

    __slots__ = ("decoders", "encoders", "formats", "name", "text")

    def __init__(self, statement: Statement) -> None:
        self.name = f"tollgate_{statement.name}".encode()
        self.text = statement.sql.encode()
        self.encoders: list[_Encode] = []
        for part in statement.parts or (statement,):
            self.encoders += [_ARRAYS[kind] for kind in part.arrays]
            self.encoders += [_SCALARS[kind] for kind in part.scalars]
        self.formats = [pq.Format.BINARY] * len(self.encoders)
        self.decoders = [_DECODE[kind] for kind in statement.columns]

    def encode(self, values: Sequence[Any]) -> list[bytes]:
        """Parameters as bytes."""
        return [encoder(value) for encoder, value in zip(self.encoders, values, strict=True)]

    def rows(self, result: pq.abc.PGresult) -> list[Row]:
        """Values of an answer."""
        decoders, get = self.decoders, result.get_value
        return [
            tuple(
                [None if (data := get(row, place)) is None else decode(data) for place, decode in enumerate(decoders)]
            )
            for row in range(result.ntuples)
        ]


class LibpqWire:
    """Rounds as pipelines of libpq."""

    def __init__(self, session: PostgresSession, deadline_s: float = DEADLINE_S, waits: Waits = BLOCKING) -> None:
        self._session = session
        self._deadline_s = deadline_s
        self._waits = waits
        self._connection: Connection | None = None
        self._server: pq.abc.PGconn | None = None
        self._statements: dict[str, _Prepared] = {}
        self._ready: set[str] = set()

    @property
    def session(self) -> PostgresSession:
        """The session."""
        return self._session

    def open(self) -> bool:
        """Open a connection if there is none, and put it into pipeline mode for good."""
        if self._session.is_open:
            connection = self._session.connection
        else:
            connection = self._waits.aside(lambda: self._session.connection)
        if connection is self._connection:
            return False
        server = connection.pgconn
        server.nonblocking = 1
        server.enter_pipeline_mode()
        self._ready = set()
        self._connection, self._server = connection, server
        return True

    def run(self, steps: Sequence[Step]) -> list[list[Row]]:
        """One pipeline; a statement that is new to the connection is prepared on the way."""
        server = self._server
        if server is None or not self._session.is_open:
            raise psycopg.OperationalError("there is no connection")
        # All parameters first: one that cannot be encoded must not leave half a round behind.
        encoded = [self._encoded(statement, values) for statement, values in steps]
        expected: list[tuple[_Prepared, str]] = []
        preparing: set[str] = set()
        try:
            for (statement, _), (prepared, parameters) in zip(steps, encoded, strict=True):
                if statement.name not in self._ready and statement.name not in preparing:
                    server.send_prepare(prepared.name, prepared.text)
                    expected.append((prepared, statement.name))
                    preparing.add(statement.name)
                server.send_query_prepared(prepared.name, parameters, prepared.formats, result_format=pq.Format.BINARY)
                expected.append((prepared, ""))
            server.pipeline_sync()
            return self._answers(server, expected)
        except psycopg.Error as error:
            if error.sqlstate is None or is_stale(error):
                self._session.close()
            raise
        except BaseException:
            # In the middle of a round: what is still to come would be taken for the answers of the next one.
            self._session.close()
            raise

    def _encoded(self, statement: Statement, values: Sequence[Any]) -> tuple[_Prepared, list[bytes]]:
        """A statement with its codecs and its parameters.

        Raises:
            psycopg.DataError: A value does not fit its type.
        """
        prepared = self._statements.get(statement.name)
        if prepared is None:
            prepared = self._statements[statement.name] = _Prepared(statement)
        try:
            return prepared, prepared.encode(values)
        except (struct.error, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise psycopg.DataError(f"a parameter of {statement.name} does not fit its type") from error

    def rollback(self) -> None:
        """Roll back in a round of its own, or close what cannot be rolled back."""
        server = self._server
        if server is None or not self._session.is_open or server.transaction_status == pq.TransactionStatus.IDLE:
            return
        try:
            self.run([(ROLLBACK, ())])
        except psycopg.Error:
            self._session.close()

    def _answers(self, server: pq.abc.PGconn, expected: Sequence[tuple[_Prepared, str]]) -> list[list[Row]]:
        """Read all answers, up to the one of the synchronisation; the first error is the one that tells."""
        found: list[list[Row]] = []
        failure: psycopg.Error | None = None
        try:
            for result, (prepared, preparing) in zip(self._results(server), expected, strict=True):
                if failure is not None:
                    continue
                if result.status not in _DONE:
                    failure = _error(result)
                elif preparing:
                    self._ready.add(preparing)
                else:
                    found.append(prepared.rows(result) if prepared.decoders else [])
        except psycopg.OperationalError as error:
            self._session.close()
            raise failure or error from None
        if failure is not None:
            raise failure
        return found

    def _results(self, server: pq.abc.PGconn) -> Iterator[pq.abc.PGresult]:
        """Results as they come, until the synchronisation.

        Raises:
            psycopg.OperationalError: The connection is lost, or the deadline has passed.
        """
        until = monotonic() + self._deadline_s
        is_sent = server.flush() == 0
        while True:
            gaps = 0
            while not server.is_busy():
                result = server.get_result()
                if result is None:
                    # One stands between two statements; more of them in a row stand for nothing that could follow.
                    gaps += 1
                    if gaps > _MOST_GAPS:
                        raise psycopg.OperationalError("the connection was lost")
                    continue
                gaps = 0
                if result.status == pq.ExecStatus.PIPELINE_SYNC:
                    return
                yield result
            left_s = until - monotonic()
            ready = self._waits.ready(server.socket, _READ if is_sent else _BOTH, left_s) if left_s > 0 else 0
            if not ready:
                raise psycopg.OperationalError(f"no answer within {self._deadline_s:g} s")
            if ready & ~select.POLLOUT:
                server.consume_input()
            is_sent = is_sent or server.flush() == 0


def _error(result: pq.abc.PGresult) -> psycopg.Error:
    """The error of a result, as the class that psycopg has for its state."""
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    words = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message).decode("utf-8", "replace")
    try:
        kind = psycopg.errors.lookup(state) if state else psycopg.OperationalError
    except KeyError:
        kind = psycopg.DatabaseError
    return kind(words, info=result)
