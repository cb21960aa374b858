"""What an error of Postgres means to a caller: the one place that maps SQLSTATEs and psycopg's classes to Tollgate's.

A SQLSTATE is looked up whole, then by its class, the first two characters. Errors without one come from the client:
libpq lost the server, or our own code used psycopg wrongly. What is unknown counts as passing: a batch retried costs
time, a batch given up costs decisions.

Source: PostgreSQL 16, appendix A, "PostgreSQL Error Codes".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

import psycopg
from azure.core.exceptions import AzureError

from shared.adapters import blob_errors
from shared.domain.errors import BrokenInvariant, TollgateError, Transient


class Kind(Enum):
    """What is to be done about an error."""

    PASSES = "the database cannot do it now"
    REFUSED = "the database refuses it"
    NO_SCHEMA = "the schema is not the one this release needs; run `tollgate db upgrade`"
    NO_RIGHT = "the role lacks a right; run `tollgate db grants`"
    NO_LOGIN = "the login was refused"
    NO_PARTITION = "there is no partition for this event time; run `tollgate db partitions`"


STATES: Final[dict[str, Kind]] = {
    "23514": Kind.REFUSED,  # check violation; a missing partition has this state too, see `_kind`
    "25006": Kind.PASSES,  # read-only transaction: a failover is under way, or the disk is nearly full
    "25P03": Kind.PASSES,  # idle in transaction for too long: this process stood still
    "25P04": Kind.PASSES,  # transaction timeout
    "42501": Kind.NO_RIGHT,
    "3D000": Kind.NO_SCHEMA,  # no such database
    "57014": Kind.PASSES,  # canceled: statement timeout
}
"""States that mean something else than their class."""

CLASSES: Final[dict[str, Kind]] = {
    "00": Kind.PASSES,
    "01": Kind.PASSES,
    "02": Kind.PASSES,
    "03": Kind.REFUSED,
    "08": Kind.PASSES,  # connection lost
    "09": Kind.REFUSED,
    "0A": Kind.REFUSED,
    "0B": Kind.REFUSED,
    "0F": Kind.REFUSED,
    "0L": Kind.NO_RIGHT,
    "0P": Kind.NO_RIGHT,
    "0Z": Kind.REFUSED,
    "10": Kind.REFUSED,
    "20": Kind.REFUSED,
    "21": Kind.REFUSED,
    "22": Kind.REFUSED,  # data
    "23": Kind.REFUSED,  # integrity
    "24": Kind.REFUSED,
    "25": Kind.REFUSED,
    "26": Kind.PASSES,  # a prepared statement is gone: a pooler gave us another server connection
    "27": Kind.REFUSED,
    "28": Kind.NO_LOGIN,
    "2B": Kind.REFUSED,
    "2D": Kind.REFUSED,
    "2F": Kind.REFUSED,
    "34": Kind.REFUSED,
    "38": Kind.REFUSED,
    "39": Kind.REFUSED,
    "3B": Kind.REFUSED,
    "3D": Kind.NO_SCHEMA,
    "3F": Kind.NO_SCHEMA,
    "40": Kind.PASSES,  # lost against another unit: deadlock, serialization
    "42": Kind.NO_SCHEMA,  # a table, column or function that is not there
    "44": Kind.REFUSED,
    "53": Kind.PASSES,  # resources: disk, memory, connections
    "54": Kind.REFUSED,
    "55": Kind.PASSES,  # lock timeout, object in use
    "57": Kind.PASSES,  # shutdown, cancel
    "58": Kind.PASSES,  # the server's own input and output
    "72": Kind.PASSES,
    "F0": Kind.REFUSED,
    "HV": Kind.REFUSED,
    "P0": Kind.REFUSED,
    "XX": Kind.REFUSED,  # damage inside the server
}
"""Every class of appendix A."""

CLIENT: Final[tuple[tuple[type[psycopg.Error], Kind], ...]] = (
    (psycopg.errors.PipelineAborted, Kind.PASSES),  # follows another error, which tells more
    (psycopg.OperationalError, Kind.PASSES),
    (psycopg.InterfaceError, Kind.PASSES),  # used after it was closed
    (psycopg.NotSupportedError, Kind.REFUSED),
    (psycopg.ProgrammingError, Kind.REFUSED),
    (psycopg.DataError, Kind.REFUSED),
    (psycopg.IntegrityError, Kind.REFUSED),
    (psycopg.InternalError, Kind.REFUSED),
)
"""Errors without a SQLSTATE, the first that fits."""

_OF_CONNECTION: Final = frozenset({"25006", "26000"})
_NOT_SUPPORTED: Final = "0A000"
_REVALIDATION: Final = "RevalidateCachedQuery"
_CHECK_VIOLATION: Final = "23514"
_LOGIN_MARKS: Final = ("password authentication failed", "no pg_hba.conf entry", "is not permitted to log in")
_DATABASE_MARK: Final = "does not exist"


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn every error of Postgres and of fetching its token into Tollgate's tree; `doing` says what was tried."""
    try:
        yield
    except psycopg.Error as error:
        raise meaning(error, doing) from error
    except AzureError as error:
        raise blob_errors.meaning(error, doing) from error


def meaning(error: psycopg.Error, doing: str) -> TollgateError:
    """The error of Tollgate's tree that an error of psycopg stands for; its message names state, not data."""
    kind = _kind(error)
    state = error.sqlstate or type(error).__name__
    text = f"{doing}: {kind.value} ({state})"
    return Transient(text) if kind is Kind.PASSES else BrokenInvariant(text)


def _kind(error: psycopg.Error) -> Kind:
    state = error.sqlstate
    if state is None:
        return _client_kind(error)
    if state == _CHECK_VIOLATION and _is_of_partition(error):
        return Kind.NO_PARTITION
    if is_stale(error):
        return Kind.PASSES
    return STATES.get(state) or CLASSES.get(state[:2], Kind.PASSES)


def is_stale(error: psycopg.Error) -> bool:
    """Whether the connection itself is at fault, so that a new one mends it.

    Its prepared statements are gone because a pooler gave us another server connection, or a migration changed the type
    of a column that they return, or it leads to a server that only reads because another one took over. The name of a
    function stands for the second, because a server may word its messages in any language.
    """
    return error.sqlstate in _OF_CONNECTION or (
        error.sqlstate == _NOT_SUPPORTED and error.diag.source_function == _REVALIDATION
    )


def _is_of_partition(error: psycopg.Error) -> bool:
    """Whether a failed check is that of no partition taking a row: that one has a table and no constraint."""
    diagnosis = error.diag
    return diagnosis.table_name is not None and diagnosis.constraint_name is None


def _client_kind(error: psycopg.Error) -> Kind:
    """What an error without a state means; libpq gives refused logins none, so its words have to do."""
    if isinstance(error, psycopg.OperationalError):
        words = str(error)
        if any(mark in words for mark in _LOGIN_MARKS):
            return Kind.NO_LOGIN
        if _DATABASE_MARK in words and 'database "' in words:
            return Kind.NO_SCHEMA
    return next((kind for group, kind in CLIENT if isinstance(error, group)), Kind.PASSES)
