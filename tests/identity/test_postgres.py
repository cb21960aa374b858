"""Tokens as rotating passwords of a real Postgres, over verified TLS, through the shared library."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import certifi
import jwt
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from shared.adapters.postgres import TOKEN_SCOPE, connect, conninfo, parse_postgres, password
from tests.identity import servers
from tests.identity.servers import INGEST, ROOT, SCORE
from twin.identity.certificates import trust_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.identity.servers import RunningEndpoint, RunningPostgres
    from twin.identity.certificates import Certificates

RESOURCE = TOKEN_SCOPE.removesuffix("/.default")
CONNECTIONS = 5
"""More than so many are made by each process in the test of many rotations."""

PERIOD_S = 8
"""From one token to the next in that test, seconds."""

TO_LOG_IN_S = 0.8
"""How long whoever got a token just before it is replaced has to log in with it: a tenth of the period."""


@contextlib.contextmanager
def serving(
    folder: Path,
    postgres: RunningPostgres,
    tls: Certificates,
    role: str,
    member_of: str | None = None,
    **changes: Any,
) -> Iterator[RunningEndpoint]:
    """Run an endpoint whose tokens are the passwords of `role`, with TLS in front of the server."""
    front = {"port": 0, "certificate": str(tls.certificate), "key": str(tls.key)}
    front |= {"server_host": "127.0.0.1", "server_port": postgres.port}
    roles = {SCORE["client_id"]: role}
    section = {"admin_dsn": postgres.admin_dsn, "roles": roles, "member_of": member_of, "tls": front}
    with servers.endpoint(folder, postgres=section, **changes) as running:
        yield running


def settings(running: RunningEndpoint, role: str, **changes: str) -> dict[str, str]:
    parts = {
        "host": "localhost",
        "port": str(running.postgres_tls_port),
        "database": "postgres",
        "user": role,
        "credential": "managedidentity",
        "clientId": str(SCORE["client_id"]),
    } | changes
    return {f"Db__{key}": value for key, value in parts.items()}


@pytest.fixture
def role() -> str:
    return f"score-{os.urandom(4).hex()}"


@pytest.fixture
def running(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningEndpoint]:
    with serving(tmp_path, postgres, tls, role) as running:
        for name, value in {**running.environment, **trust_environment(tls)}.items():
            monkeypatch.setenv(name, value)
        yield running


def login(running: RunningEndpoint, tls: Certificates, role: str, password: str) -> None:
    """Log in with a password as any client would."""
    parameters = {"host": "localhost", "port": running.postgres_tls_port, "dbname": "postgres", "user": role}
    parameters |= {"password": password, "sslmode": "verify-full", "sslrootcert": str(tls.bundle)}
    with psycopg.connect(make_conninfo("", **parameters, connect_timeout=10)) as connection:
        connection.execute("SELECT 1")


def refusal(running: RunningEndpoint, tls: Certificates, role: str, password: str) -> str:
    """Return why a login is refused, or nothing."""
    try:
        login(running, tls, role, password)
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def test_the_shared_library_logs_in_with_a_token_over_verified_tls(running: RunningEndpoint, role: str) -> None:
    connection = parse_postgres("Db", settings(running, role) | {"SSL_CERT_FILE": os.environ["SSL_CERT_FILE"]})
    with connect(connection, application_name="score") as session:
        row = session.execute("SELECT current_user::text, current_setting('application_name')").fetchone()
        assert row == (role, "score")
        assert session.pgconn.ssl_in_use


def test_a_wrong_token_and_one_of_another_identity_are_refused(
    running: RunningEndpoint, tls: Certificates, role: str
) -> None:
    token = running.token(RESOURCE)
    login(running, tls, role, token)
    for wrong in (token[:-4] + "AAAA", running.token("https://storage.azure.com"), "password"):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            login(running, tls, role, wrong)


def test_a_slash_at_the_end_of_the_resource_makes_no_other_password(running: RunningEndpoint) -> None:
    assert running.token(f"{RESOURCE}/") == running.token(RESOURCE)


def test_an_identity_without_a_role_gets_a_token_that_opens_nothing(
    tmp_path: Path, running: RunningEndpoint, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    identities = [SCORE, INGEST | {"resources": None}]
    with serving(tmp_path / "two", postgres, tls, role, identities=identities) as other:
        good = other.token(RESOURCE)
        token = other.token(RESOURCE, client_id=str(INGEST["client_id"]))
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            login(other, tls, role, token)
        login(other, tls, role, good)


def test_a_server_that_is_not_trusted_gets_no_token(running: RunningEndpoint, role: str) -> None:
    connection = parse_postgres("Db", settings(running, role, sslRootCert=certifi.where()))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        connect(connection, application_name="score")


def test_a_client_without_tls_is_refused(running: RunningEndpoint, role: str) -> None:
    parameters = {"host": "127.0.0.1", "port": running.postgres_tls_port, "user": role, "password": "x"}
    with pytest.raises(psycopg.OperationalError, match="connections with TLS only"):
        psycopg.connect(make_conninfo("", **parameters, sslmode="disable", connect_timeout=10))


def test_a_replaced_token_is_refused_and_a_new_connection_works_without_a_restart(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, postgres, tls, role, token_lifetime_s=20) as running:  # 10 s and more for three logins
        for name, value in {**running.environment, **trust_environment(tls)}.items():
            monkeypatch.setenv(name, value)
        connection = parse_postgres("Db", settings(running, role, sslRootCert=str(tls.bundle)))
        with connect(connection, application_name="score", autocommit=True) as session:
            first = running.token(RESOURCE)
            second = servers.wait_until(
                "the next token", 60, lambda: token if (token := running.token(RESOURCE)) != first else None
            )
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                login(running, tls, role, first)
            login(running, tls, role, second)
            with connect(connection, application_name="score") as other:
                other.execute("SELECT 1")
            # An open session outlives its token, as in Azure.
            session.execute("SELECT 1")


@pytest.mark.slow
def test_who_was_given_the_old_token_just_before_has_time_to_log_in(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    """Periods of 8 s, of which the first 0.8 s belong to the old token: the first who asks then has to wait."""
    with serving(tmp_path, postgres, tls, role, token_lifetime_s=16) as running, ThreadPoolExecutor(1) as pool:
        for _ in range(12):
            old = running.token(RESOURCE)
            replaced_at = jwt.decode(old, options={"verify_signature": False})["iat"] + 8
            time.sleep(max(0.0, replaced_at + 0.05 - time.time()))
            asking = pool.submit(running.token, RESOURCE)
            refused = refusal(running, tls, role, old)
            in_time = time.time() < replaced_at + 0.8
            new = asking.result(timeout=60)
            assert new != old
            assert time.time() >= replaced_at + 0.8
            assert "password authentication failed" in refusal(running, tls, role, old)
            if in_time:
                break
            # A busy machine: the login took longer than the time there is. Try the next replacement.
        assert in_time
        assert refused == ""


def test_a_token_ends_though_nobody_replaces_it(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    with serving(tmp_path, postgres, tls, role, token_lifetime_s=10) as running:
        token = running.token(RESOURCE)
        login(running, tls, role, token)
        ends = jwt.decode(token, options={"verify_signature": False})["exp"]
        time.sleep(max(0.0, ends - time.time()) + 0.2)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            login(running, tls, role, token)


def test_a_restarted_endpoint_leaves_the_tokens_of_running_clients_in_force(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    with serving(tmp_path, postgres, tls, role, token_lifetime_s=86_400) as running:
        token = running.token(RESOURCE)
    with serving(tmp_path, postgres, tls, role, token_lifetime_s=86_400) as running:
        login(running, tls, role, token)
        assert running.token(RESOURCE) == token
        login(running, tls, role, token)


def test_a_new_role_inherits_the_rights_of_the_one_it_joins(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(f"{role}-owner")))
    with serving(tmp_path, postgres, tls, role, member_of=f"{role}-owner") as running:
        running.token(RESOURCE)
    with psycopg.connect(postgres.admin_dsn) as admin:
        row = admin.execute("SELECT pg_has_role(%s, %s, 'USAGE')", [role, f"{role}-owner"]).fetchone()
    assert row == (True,)


def test_a_database_made_anew_has_its_password_again(
    running: RunningEndpoint, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    token = running.token(RESOURCE)
    with psycopg.connect(postgres.admin_dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    with pytest.raises(psycopg.OperationalError):
        login(running, tls, role, token)
    login(running, tls, role, running.token(RESOURCE))


def _connect_until(ends_at: float, role: str, connection: dict[str, str], results: Any) -> None:
    """Open connection after connection, as a pool under churn does; report how many and what was refused.

    Until a moment, and until there were enough: a process may need longer than that to begin.
    """
    opened = 0
    refused: list[str] = []
    where = parse_postgres("Db", connection)
    while time.time() < ends_at or opened + len(refused) <= CONNECTIONS:
        asked_at = time.time()
        token = password(where)
        assert token is not None
        try:
            with psycopg.connect(conninfo(where, application_name="churn"), password=token) as session:
                session.execute("SELECT 1")
            opened += 1
        except psycopg.OperationalError as error:
            # A process that gets no processor in time to log in is promised nothing.
            replaced_at = jwt.decode(token, options={"verify_signature": False})["iat"] + PERIOD_S
            if asked_at >= replaced_at or time.time() < replaced_at + TO_LOG_IN_S:
                refused.append(str(error))
    results.put((opened, refused))


@pytest.mark.slow
def test_several_processes_connect_through_many_rotations_without_a_refusal(
    tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotations every 8 s, three processes with a cache each, 20 s: no login may fail that is made in time.

    Whoever got a token just before it was replaced has .8 s to log in.
    """
    with serving(tmp_path, postgres, tls, role, token_lifetime_s=2 * PERIOD_S) as running:
        for name, value in {**running.environment, **trust_environment(tls)}.items():
            monkeypatch.setenv(name, value)
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        parts = settings(running, role, sslRootCert=str(tls.bundle))
        arguments = (time.time() + 20, role, parts, results)
        workers = [context.Process(target=_connect_until, args=arguments) for _ in range(3)]
        for worker in workers:
            worker.start()
        outcomes = [results.get(timeout=100) for _ in workers]
        for worker in workers:
            worker.join(20)
        assert [refused for _, refused in outcomes] == [[], [], []]
        assert min(opened for opened, _ in outcomes) > CONNECTIONS


def test_no_token_is_in_any_log(
    running: RunningEndpoint, postgres: RunningPostgres, tls: Certificates, role: str
) -> None:
    token = running.token(RESOURCE)
    login(running, tls, role, token)
    with pytest.raises(psycopg.OperationalError) as error:
        login(running, tls, role, token[:-4] + "AAAA")
    password = postgres.admin_dsn.split(":")[2].split("@")[0]
    log = postgres.log.read_text()
    assert f'ALTER ROLE "{role}"' in log
    for text in (log, running.log.read_text(), str(error.value)):
        assert token.rsplit(".", 1)[1][:-4] not in text
        assert password not in text


def test_health_and_tokens_say_so_when_postgres_is_away(tmp_path: Path, tls: Certificates) -> None:
    away = f"postgresql://twin:hidden-away@127.0.0.1:{servers.free_port()}/postgres"
    section = {"admin_dsn": away, "roles": {SCORE["client_id"]: "score"}}
    with servers.endpoint(tmp_path, postgres=section) as running:
        status, body = running.get(
            **{"resource": RESOURCE, "api-version": "2019-08-01", "client_id": str(SCORE["client_id"])}
        )
        assert (status, body["statusCode"]) == (500, 500)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(running.url.replace("/msi/token", "/health"), timeout=10)
        with error.value:
            assert error.value.code == 503
        # Other resources do not depend on the database.
        assert running.token("https://storage.azure.com")
        assert "hidden-away" not in running.log.read_text()


def test_it_stops_with_sessions_open(tmp_path: Path, postgres: RunningPostgres, tls: Certificates, role: str) -> None:
    with serving(tmp_path, postgres, tls, role) as running:
        parameters = {"host": "localhost", "port": running.postgres_tls_port, "dbname": "postgres", "user": role}
        parameters |= {"password": running.token(RESOURCE), "sslmode": "verify-full", "sslrootcert": str(tls.bundle)}
        session = psycopg.connect(make_conninfo("", **parameters), autocommit=True)
        session.execute("SELECT 1")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()
        assert "Traceback" not in running.log.read_text()


def test_a_cancel_request_reaches_the_server(running: RunningEndpoint, tls: Certificates, role: str) -> None:
    parameters = {"host": "localhost", "port": running.postgres_tls_port, "dbname": "postgres", "user": role}
    parameters |= {"password": running.token(RESOURCE), "sslmode": "verify-full", "sslrootcert": str(tls.bundle)}
    with psycopg.connect(make_conninfo("", **parameters, connect_timeout=10), autocommit=True) as session:
        session.pgconn.send_query(b"SELECT pg_sleep(150)")  # ends in time only when cancelled
        for _ in range(60):
            session.cancel_safe(timeout=60)  # one that comes before the query runs cancels nothing
            select.select([session.pgconn.socket], [], [], 1)
            session.pgconn.consume_input()
            if not session.pgconn.is_busy():
                break
        result = session.pgconn.get_result()
        assert result is not None
        assert b"canceling statement" in result.error_message
        assert session.pgconn.get_result() is None


@pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", bytes(range(7, 71))])
def test_garbage_in_front_of_postgres_hurts_nobody_else(
    running: RunningEndpoint, tls: Certificates, role: str, garbage: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", int(running.postgres_tls_port or 0)), timeout=10) as plain:
        plain.sendall(garbage)
        plain.shutdown(socket.SHUT_WR)
        plain.settimeout(15)
        while plain.recv(4096):
            pass
    with socket.create_connection(("127.0.0.1", int(running.postgres_tls_port or 0)), timeout=10) as half:
        half.sendall(struct.pack("!ii", 8, 80877103))
        assert half.recv(1) == b"S"
        half.sendall(garbage or b"\0")
    login(running, tls, role, running.token(RESOURCE))
    assert "Traceback" not in running.log.read_text()


def test_a_certificate_that_is_none_is_named(tmp_path: Path, postgres: RunningPostgres, tls: Certificates) -> None:
    front = {"port": 0, "certificate": str(tls.key), "key": str(tls.key)}
    front |= {"server_host": "127.0.0.1", "server_port": postgres.port}
    section = {"admin_dsn": postgres.admin_dsn, "roles": {}, "tls": front}
    (tmp_path / "identity.json").write_text(json.dumps(servers.endpoint_config(tmp_path, postgres=section)))
    command = [sys.executable, "-m", "twin.identity", "--config", str(tmp_path / "identity.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "postgres.tls: certificate and key must be a pair" in done.stderr
