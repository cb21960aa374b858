"""From a notice in Postgres to real servers, with settings as the drift app reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from shared.adapters.postgres_notices import PostgresNotices
from shared.adapters.postgres_session import PostgresSession
from shared.adapters.schema.grants import Role
from shared.bootstrap.drift_notices import Rounds, channels
from shared.domain.pipeline import Notice, Severity
from shared.settings import DriftSettings, SettingsError
from tests.conftest import MigratedDatabase
from tests.fakes.probes import FakeClock
from tests.integration.notice_servers import HOST, Answer, Mood, mail_server, web_server
from twin.services.app_settings import with_keys
from twin.services.settings import TwinSettings

CLOCK = FakeClock()


def settings(**changes: str) -> DriftSettings:
    return DriftSettings.read({**with_keys("drift", TwinSettings()), **changes})


def mail_settings(port: int) -> dict[str, str]:
    return {
        "NOTIFY_SMTP_HOST": HOST,
        "NOTIFY_SMTP_PORT": str(port),
        "NOTIFY_SMTP_TLS": "none",
        "NOTIFY_MAIL_FROM": "tollgate@example.test",
        "NOTIFY_MAIL_TO": "ops@example.test, second@example.test",
    }


@pytest.fixture
def store(migrated_database: MigratedDatabase) -> Iterator[PostgresNotices]:
    with psycopg.connect(migrated_database.dsn) as connection:
        connection.execute("DELETE FROM tollgate.notifications")
    session = PostgresSession(migrated_database.role_connection(Role.DRIFT), "test")
    yield PostgresNotices(session)
    session.close()


def test_each_channel_tells_and_one_that_fails_holds_nobody_up(
    migrated_database: MigratedDatabase, store: PostgresNotices
) -> None:
    with mail_server(Mood.GREY) as mail, web_server(Answer(500), Answer(200)) as slack, web_server() as hook:
        given = settings(
            **mail_settings(mail.port),
            NOTIFY_SLACK_URL=slack.address,
            NOTIFY_WEBHOOK_URL=hook.address,
            NOTIFY_WEBHOOK_SECRET="geheim",
            NOTIFY_LINK_BASE="https://drift.example",
        )
        rounds = Rounds(migrated_database.role_connection(Role.DRIFT), given, channels(given, CLOCK), CLOCK)
        store.put(Notice("a", Severity.ERROR, "PSI of amount is 0.31", {"psi": 0.31}, "", CLOCK.now_us()))
        first = rounds.send()
        assert {name: (done.sent, done.put_off) for name, done in first.items()} == {
            "mail": (0, 1),
            "slack": (0, 1),
            "webhook": (1, 0),
        }
        mail.mood = Mood.WELL
        CLOCK.time_us += 60_000_000
        second = rounds.send()
        assert {name: done.sent for name, done in second.items()} == {"mail": 1, "slack": 1, "webhook": 0}
        CLOCK.time_us += 3_600_000_000
        assert not any(done.sent for done in rounds.send().values())
    assert [letter["To"] for letter in mail.letters] == ["ops@example.test, second@example.test"]
    ((_, headers, body),) = hook.posts
    assert headers["tollgate-signature"].startswith("v1=")
    assert json.loads(body)["link"] == "https://drift.example/api/reports"
    with psycopg.connect(migrated_database.dsn) as connection:
        rows = connection.execute("SELECT channel, status, attempts FROM tollgate.notifications ORDER BY 1").fetchall()
    assert rows == [("mail", "sent", 2), ("page", "sent", 0), ("slack", "sent", 2), ("webhook", "sent", 1)]


def test_no_channel_is_on_by_itself_or_by_a_secret_that_the_vault_does_not_have() -> None:
    assert channels(settings(), CLOCK) == ()
    missing = "@Microsoft.KeyVault(SecretUri=https://kv.vault.azure.net/secrets/notify-slack-url)"
    assert channels(settings(NOTIFY_SLACK_URL=missing, NOTIFY_WEBHOOK_URL=missing), CLOCK) == ()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"NOTIFY_SMTP_HOST": "mail"}, "NOTIFY_MAIL_FROM and NOTIFY_MAIL_TO must be set beside NOTIFY_SMTP_HOST"),
        (
            {**mail_settings(25), "NOTIFY_SMTP_USER": "u"},
            "NOTIFY_SMTP_TLS must not be none with NOTIFY_SMTP_USER: the password would go in clear",
        ),
        ({"NOTIFY_SMTP_TLS": "ssl"}, "NOTIFY_SMTP_TLS: input should be 'starttls', 'tls' or 'none'"),
        (
            {"NOTIFY_LINK_BASE": "drift.example"},
            "NOTIFY_LINK_BASE: string should match pattern '^$|^https?://[!-~]+$'",
        ),
        ({**mail_settings(25), "NOTIFY_MAIL_TO": "ops"}, "NOTIFY_MAIL_FROM or NOTIFY_MAIL_TO: must be a mail address"),
        (
            {"NOTIFY_SLACK_URL": "hooks.example/geheim"},
            "NOTIFY_SLACK_URL: must be an address that begins with https:// or http://",
        ),
        (
            {"NOTIFY_WEBHOOK_URL": "ftp://geheim"},
            "NOTIFY_WEBHOOK_URL: must be an address that begins with https:// or http://",
        ),
    ],
)
def test_settings_that_cannot_work_are_named_without_their_secrets(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        channels(settings(**changes), CLOCK)
    assert caught.value.problems == [problem]
    assert "geheim" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    given = settings(NOTIFY_SLACK_URL="https://hooks.example/geheim", NOTIFY_SMTP_PASSWORD="geheim")
    assert "geheim" not in repr(given)
