"""The report page of a twin, and what its timers do there: a notice goes to a web server, and to the page."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_notices import PostgresNotices
from shared.adapters.postgres_session import PostgresSession
from shared.domain.pipeline import Notice, Severity
from tests.e2e.conftest import Twin
from twin.services.settings import login_of


def asked(twin: Twin, path: str) -> tuple[int, str, str]:
    """Status, content security policy and body of an answer of the drift app."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{twin.settings.drift}/{path}", timeout=60) as answer:
            return answer.status, answer.headers["Content-Security-Policy"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, "", error.read().decode()


def fire(twin: Twin, timer: str) -> None:
    url = f"http://127.0.0.1:{twin.settings.drift}/admin/functions/{timer}"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=b'{"input": ""}', headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 202


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.3)


@pytest.mark.slow
def test_the_page_shows_notices_and_runs_and_serves_reports_only(twin: Twin) -> None:
    session = PostgresSession(
        parse_postgres("DATABASE", {"DATABASE": twin.settings.database_dsn(login_of("drift"))}), "test"
    )
    key = f"test/{time.time_ns()}"
    assert PostgresNotices(session).put(Notice(key, Severity.ERROR, f"<b>{key}</b>", {}, "", time.time_ns() // 1000))
    session.close()
    fire(twin, "send_notices")
    fire(twin, "draw_reports")

    def told() -> bool:
        status, policy, body = asked(twin, "api/reports")
        assert status == 200, body
        assert policy.startswith("default-src 'none'")
        assert f"&lt;b&gt;{key}&lt;/b&gt;" in body
        return "<td>reporting</td>" in body and "<td>notifying</td>" in body

    until(told, "the page shows both runs")
    assert asked(twin, "api/reports/drift/2026/11/21/10.parquet")[0] == 404
    assert asked(twin, "api/reports/evidently/2026/11/21/none.html")[0] == 404
