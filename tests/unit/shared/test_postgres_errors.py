"""Every error of Postgres has a meaning, and the meanings are the ones that help."""

from __future__ import annotations

import psycopg
import pytest
from azure.core.exceptions import ServiceRequestError
from azure.identity import CredentialUnavailableError

from shared.adapters.postgres_errors import CLASSES, CLIENT, STATES, is_stale, meaning, translated
from shared.domain.errors import BrokenInvariant, TollgateError, Transient


def _all_subclasses(kind: type[psycopg.Error]) -> set[type[psycopg.Error]]:
    return {kind}.union(*(_all_subclasses(child) for child in kind.__subclasses__()))


EVERY = sorted(_all_subclasses(psycopg.Error), key=str)


@pytest.mark.parametrize("kind", EVERY)
def test_every_class_of_psycopg_is_mapped_on_purpose(kind: type[psycopg.Error]) -> None:
    if kind.sqlstate is not None:
        assert kind.sqlstate in STATES or kind.sqlstate[:2] in CLASSES
    elif kind not in {psycopg.Error, psycopg.DatabaseError}:  # their subclasses are what is raised
        assert any(issubclass(kind, group) for group, _ in CLIENT)
    assert type(meaning(kind("made for a test"), "testing")) in {Transient, BrokenInvariant}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", Transient),  # connection lost
        ("57P01", Transient),  # the administrator ended the session
        ("57P02", Transient),
        ("57P03", Transient),  # starting up
        ("57014", Transient),  # statement timeout
        ("40P01", Transient),
        ("40001", Transient),
        ("55P03", Transient),  # lock timeout
        ("53300", Transient),  # too many connections
        ("53100", Transient),  # disk full
        ("53200", Transient),
        ("25006", Transient),  # read-only
        ("25P03", Transient),
        ("26000", Transient),
        ("58030", Transient),
        ("99999", Transient),  # unknown
        ("23514", BrokenInvariant),
        ("23505", BrokenInvariant),
        ("22003", BrokenInvariant),
        ("42601", BrokenInvariant),
        ("XX001", BrokenInvariant),
    ],
)
def test_states_are_told_apart(state: str, expected: type[TollgateError]) -> None:
    error = psycopg.DatabaseError("made for a test")
    error.sqlstate = state
    found = meaning(error, "writing")
    assert type(found) is expected
    assert state in str(found)
    assert str(found).startswith("writing: ")


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (psycopg.errors.UndefinedTable("x"), "tollgate db upgrade"),
        (psycopg.errors.UndefinedColumn("x"), "tollgate db upgrade"),
        (psycopg.errors.InvalidSchemaName("x"), "tollgate db upgrade"),
        (psycopg.errors.InvalidCatalogName("x"), "tollgate db upgrade"),
        (psycopg.OperationalError('FATAL:  database "tollgate" does not exist'), "tollgate db upgrade"),
        (psycopg.errors.InsufficientPrivilege("x"), "tollgate db grants"),
    ],
)
def test_a_broken_installation_names_what_mends_it(error: psycopg.Error, command: str) -> None:
    found = meaning(error, "writing")
    assert type(found) is BrokenInvariant
    assert command in str(found)


def test_a_check_that_fails_is_not_taken_for_a_partition() -> None:
    found = meaning(psycopg.errors.CheckViolation('new row violates check constraint "amount"'), "writing")
    assert type(found) is BrokenInvariant
    assert "partitions" not in str(found)


def test_some_errors_are_mended_by_another_connection() -> None:
    for kind, expected in (
        (psycopg.errors.ReadOnlySqlTransaction, True),
        (psycopg.errors.InvalidSqlStatementName, True),
        (psycopg.errors.FeatureNotSupported, False),
        (psycopg.errors.DeadlockDetected, False),
        (psycopg.OperationalError, False),
    ):
        assert is_stale(kind("made for a test")) is expected


def test_messages_hold_no_data() -> None:
    error = psycopg.errors.UniqueViolation("Key (customer_id)=(customer-000417) already exists.")
    assert "417" not in str(meaning(error, "writing"))


@pytest.mark.parametrize(
    "words",
    ['FATAL:  password authentication failed for user "app"', "FATAL:  no pg_hba.conf entry for host"],
)
def test_a_refused_login_is_a_broken_installation(words: str) -> None:
    assert type(meaning(psycopg.OperationalError(words), "connecting")) is BrokenInvariant


def test_a_server_that_cannot_be_reached_is_transient() -> None:
    assert type(meaning(psycopg.OperationalError("connection refused"), "connecting")) is Transient
    assert type(meaning(psycopg.errors.ConnectionTimeout("x"), "connecting")) is Transient


def test_a_token_that_cannot_be_had_is_transient() -> None:
    for error in (CredentialUnavailableError(message="no answer"), ServiceRequestError("no route")):
        with pytest.raises(Transient, match="connecting") as found, translated("connecting"):
            raise error
        assert found.value.__cause__ is error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError), translated("testing"):
        raise KeyError("x")
    with pytest.raises(Transient, match="mine"), translated("testing"):
        raise Transient("mine")
