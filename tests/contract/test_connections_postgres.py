"""Postgres settings to libpq parameters. Logins on a real server are in tests/identity."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from shared.adapters import postgres
from shared.adapters.connections import ConnectionSettingError, Identity

IDENTITY = {
    "Db__host": "tg.postgres.database.azure.com",
    "Db__database": "tollgate",
    "Db__user": "score-identity",
    "Db__credential": "managedidentity",
    "Db__clientId": "6f0e",
}


def test_what_a_dsn_says_wins_over_the_defaults() -> None:
    connection = postgres.parse_postgres("Db", {"Db": "postgresql://app:pw@localhost:5433/tollgate?connect_timeout=3"})
    parameters = conninfo_to_dict(postgres.conninfo(connection, application_name="score"))
    assert parameters["connect_timeout"] == "3"
    assert parameters["keepalives_idle"] == "30"
    assert parameters["application_name"] == "score"
    assert parameters["password"] == "pw"
    assert postgres.password(connection) is None


def test_an_identity_means_verified_tls_and_no_password_in_the_setting() -> None:
    connection = postgres.parse_postgres("Db", IDENTITY)
    assert connection.identity == Identity(managed=True, client_id="6f0e")
    parameters = conninfo_to_dict(postgres.conninfo(connection, application_name="score"))
    assert parameters["sslmode"] == "verify-full"
    assert Path(str(parameters["sslrootcert"])).is_file()
    assert (parameters["host"], parameters["port"]) == ("tg.postgres.database.azure.com", "5432")
    assert (parameters["user"], parameters["dbname"]) == ("score-identity", "tollgate")
    assert "password" not in parameters


def test_own_roots_come_from_the_part_or_from_ssl_cert_file() -> None:
    by_variable = postgres.parse_postgres("Db", IDENTITY | {"SSL_CERT_FILE": "bundle.pem"})
    assert dict(by_variable.parameters)["sslrootcert"] == "bundle.pem"
    by_part = postgres.parse_postgres("Db", IDENTITY | {"SSL_CERT_FILE": "bundle.pem", "Db__sslRootCert": "own.pem"})
    assert dict(by_part.parameters)["sslrootcert"] == "own.pem"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Db__host": ""}, "missing Db__host"),
        ({"Db__host": "", "Db__user": ""}, "missing Db__host, Db__user"),
        ({"Db__sslMode": "disable"}, "Db__sslMode: require or verify-full"),
        ({"Db__port": "70000"}, "Db__port"),
        ({"Db__password": "pw-secret"}, "unknown Db__password"),
        ({"Db": "host=localhost"}, "not both"),
    ],
)
def test_settings_that_cannot_be_used_are_named(change: dict[str, str], problem: str) -> None:
    with pytest.raises(ConnectionSettingError) as error:
        postgres.parse_postgres("Db", IDENTITY | change)
    assert problem in str(error.value)
    assert "pw-secret" not in str(error.value)


def test_a_malformed_dsn_is_not_quoted() -> None:
    connection = postgres.parse_postgres("Db", {"Db": "postgresql://app:pw-secret@[::1/tollgate"})
    with pytest.raises(ConnectionSettingError) as error:
        postgres.conninfo(connection, application_name="score")
    assert error.value.__cause__ is None
    assert "pw-secret" not in str(error.value)
