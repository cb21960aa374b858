"""Where the commands that feed the product write, and with which keys: the environment's, or the twin's.

Exit codes of these commands, the same for all: 0 everything was taken, now or before; 1 rows or letters were refused,
the others were taken; 2 it could not be done or not to its end: a file, an option, a setting, the database. Whatever
was taken stays, and running the command again goes on from there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import typer
from rich.console import Console

from twin.services.app_settings import surrogate_keys, with_keys
from twin.services.settings import SettingsError, TwinSettings, login_of

if TYPE_CHECKING:
    from shared.adapters.postgres import PostgresConnection
    from shared.domain.surrogates import KeyRing

REFUSED: Final = 1
NOT_DONE: Final = 2

DATABASE: Final = "DATABASE"
KEYS: Final = "SURROGATE_KEYS"
SHOWN: Final = 20
"""Refused rows that are printed by name; all of them go to the file of `--rejects`."""

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class FeedConnection:
    """Where rows are written.

    Attributes:
        rows: With the rights of the ingest app.
        owner: With the right to make partitions.
        keys: The surrogate keys of the deployment.
    """

    rows: PostgresConnection
    owner: PostgresConnection
    keys: KeyRing


def ingest_environment() -> dict[str, str]:
    """The settings of the ingest app: the environment's if it names a database, else the twin's.

    Raises:
        SettingsError: The twin's own settings cannot be used.
    """
    if _is_set(DATABASE):
        return dict(os.environ)
    settings = TwinSettings.read(os.environ)
    return with_keys("ingest", settings, surrogate_keys(settings))


def feed_connection(dsn: str | None) -> FeedConnection:
    """Where to write: a connection string, what `DATABASE` says, or the twin.

    The twin has its own keys; those of another deployment must be named, because with other keys a database would
    call its customers by other surrogates.

    Raises:
        SettingsError: There are no keys, or settings of the twin cannot be used.
        InvalidInput: The keys cannot be read.
        ConnectionSettingError: The connection cannot.
    """
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415 - commands import what they use
    from shared.domain.surrogates import parse_key_ring  # noqa: PLC0415

    if dsn is not None or _is_set(DATABASE):
        given = os.environ.get(KEYS)
        if not given:
            raise SettingsError(f"{KEYS} must be set to the keys of the deployment that the database belongs to")
        where = parse_postgres(DATABASE, os.environ if dsn is None else {DATABASE: dsn})
        return FeedConnection(where, where, parse_key_ring(given))
    settings = TwinSettings.read(os.environ)
    return FeedConnection(
        parse_postgres(DATABASE, {DATABASE: settings.database_dsn(login_of("ingest"))}),
        parse_postgres(DATABASE, {DATABASE: settings.database_dsn()}),
        parse_key_ring(surrogate_keys(settings)),
    )


def database_of(dsn: str | None) -> PostgresConnection:
    """A database as its owner: a connection string, what `DATABASE` says, or the twin's.

    Raises:
        SettingsError: Settings of the twin cannot be used.
        ConnectionSettingError: The connection cannot.
    """
    from shared.adapters.postgres import parse_postgres  # noqa: PLC0415 - commands import what they use

    if dsn is not None:
        return parse_postgres(DATABASE, {DATABASE: dsn})
    if _is_set(DATABASE):
        return parse_postgres(DATABASE, os.environ)
    return parse_postgres(DATABASE, {DATABASE: TwinSettings.read(os.environ).database_dsn()})


@contextmanager
def told() -> Iterator[None]:
    """Turn what keeps a command from its end into one line and exit code 2."""
    from shared.adapters.connections import ConnectionSettingError  # noqa: PLC0415
    from shared.domain.errors import TollgateError  # noqa: PLC0415
    from shared.settings import SettingsError as AppSettingsError  # noqa: PLC0415
    from twin.history import UnreadableFile  # noqa: PLC0415

    try:
        yield
    except (TollgateError, UnreadableFile, SettingsError, AppSettingsError, ConnectionSettingError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        note("tollgate: interrupted; what was taken stays, run it again to go on")
        raise typer.Exit(128 + signal.SIGINT) from None


def say(text: str) -> None:
    """Print a line of the answer."""
    _out.print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a line beside the answer, to the standard error."""
    _err.print(text, markup=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Say why the command ends, and end it."""
    _err.print(f"tollgate: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(NOT_DONE)


def _is_set(name: str) -> bool:
    return any(key == name or key.startswith(f"{name}__") for key in os.environ)
