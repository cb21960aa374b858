"""Channels against real servers on loopback, the well ones and those that fail."""

from __future__ import annotations

import hashlib
import hmac
import json
from email.headerregistry import Address
from pathlib import Path

import pytest

from shared.adapters.slack_channel import SlackChannel, message
from shared.adapters.smtp_channel import SmtpChannel, SmtpServer, SmtpTls, mail
from shared.adapters.webhook_channel import WebhookChannel, checked_address
from shared.domain.errors import BrokenInvariant, Overloaded, TollgateError, Transient
from shared.domain.pipeline import Notice, Severity
from shared.ports.notifying import Channel
from tests.conftest import free_ports
from tests.fakes.probes import FakeClock
from tests.integration.notice_servers import (
    HOST,
    Answer,
    Certificate,
    MailServer,
    Mood,
    mail_server,
    make_certificate,
    web_server,
)

PATIENCE_S = 60.0
SHORT_S = 2.0
"""For servers that drip, and would do so for ever: only a client that hangs up ends those tests."""

CLOCK = FakeClock()
NOTICE = Notice(
    "drift/amount/2026-11-21T10",
    Severity.ERROR,
    "PSI of amount is 0.31 <b>& rising</b>",
    {"psi": 0.31, "window": {"rows": 1200}, "name": "<!channel> *x* </td><script>"},
    "https://drift.example/api/reports",
    CLOCK.now_us(),
)
HOSTILE = Notice(
    "k", Severity.CRITICAL, "a\rBcc: thief@example.test\x0b\u2028x", {"a\r\nTo: x": "b\r\n.\r\nRCPT TO:<x>"}, "", 1
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(Path(tmp_path_factory.mktemp("certificate")))


def mailing(server: MailServer, tls: SmtpTls = SmtpTls.NONE, trust: Certificate | None = None) -> SmtpChannel:
    timeout_s = SHORT_S if server.mood is Mood.DRIPS else PATIENCE_S
    user, password = server.login or ("", "")
    where = SmtpServer(HOST, server.port, tls, user, password)
    recipients = ("ops@example.test", "second@example.test")
    context = trust.trust if trust else None
    return SmtpChannel(where, "tollgate@example.test", recipients, tls=context, timeout_s=timeout_s)


@pytest.mark.parametrize("tls", SmtpTls)
def test_a_mail_arrives_with_its_evidence_and_link(tls: SmtpTls, certificate: Certificate) -> None:
    login = None if tls is SmtpTls.NONE else ("user", "geheim")
    with mail_server(tls=certificate.server, implicit=tls is SmtpTls.TLS, login=login) as server:
        mailing(server, tls, certificate).send(NOTICE)
    (letter,) = server.letters
    assert server.recipients == [["ops@example.test", "second@example.test"]]
    assert letter["Subject"] == "[Tollgate] error: PSI of amount is 0.31 <b>& rising</b>"
    assert letter["Date"].datetime.timestamp() == CLOCK.now_us() // 1_000_000
    plain, page = letter.get_body(("plain",)), letter.get_body(("html",))
    assert plain is not None
    assert page is not None
    assert "window.rows: 1200" in plain.get_content()
    assert NOTICE.link in plain.get_content()
    assert "<script>" not in page.get_content()
    assert "&lt;script&gt;" in page.get_content()
    assert f'<a href="{NOTICE.link}">' in page.get_content()


def test_nothing_in_a_notice_becomes_a_header_or_a_command() -> None:
    with mail_server() as server:
        mailing(server).send(HOSTILE)
    (letter,) = server.letters
    assert set(letter.keys()) == {
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Importance", "MIME-Version"),
        "Content-Type",
    }
    assert letter["Subject"] == "[Tollgate] critical: a Bcc: thief@example.test  x"
    assert server.recipients == [["ops@example.test", "second@example.test"]]


def test_a_repeat_is_known_by_its_message_id() -> None:
    sender, to = Address(addr_spec="a@example.test"), (Address(addr_spec="b@example.test"),)
    assert mail(NOTICE, sender, to)["Message-ID"] == mail(NOTICE, sender, to)["Message-ID"]
    assert mail(NOTICE, sender, to)["Message-ID"] != mail(HOSTILE, sender, to)["Message-ID"]


@pytest.mark.parametrize(
    ("mood", "fault"),
    [
        (Mood.BUSY, Transient),
        (Mood.GREY, Transient),
        (Mood.BREAKS_OFF, Transient),
        (Mood.GARBAGE, Transient),
        (Mood.BABBLES, Transient),
        (Mood.DRIPS, Transient),
        (Mood.REFUSES_ALL, BrokenInvariant),
        (Mood.REFUSES_BODY, BrokenInvariant),
    ],
)
def test_how_a_mail_server_fails_says_whether_to_come_again(mood: Mood, fault: type[TollgateError]) -> None:
    with mail_server(mood) as server, pytest.raises(fault):
        mailing(server).send(NOTICE)
    assert not server.letters


def test_a_mail_waits_where_a_login_is_wanted() -> None:
    with mail_server(login=("user", "geheim")) as server, pytest.raises(Transient, match="530"):
        SmtpChannel(SmtpServer(HOST, server.port, SmtpTls.NONE), "a@example.test", ("b@example.test",)).send(NOTICE)


@pytest.mark.parametrize("mood", [Mood.REFUSES_SECOND, Mood.NO_GOODBYE])
def test_what_was_taken_is_sent(mood: Mood) -> None:
    with mail_server(mood) as server:
        mailing(server).send(NOTICE)
    assert len(server.letters) == 1


def test_a_mail_waits_where_nobody_can_be_trusted(certificate: Certificate) -> None:
    login = ("user", "geheim")
    with mail_server(tls=certificate.server, login=login) as server, pytest.raises(Transient):
        mailing(server, SmtpTls.STARTTLS).send(NOTICE)  # the system's authorities do not know the certificate
    assert not [line for line in server.seen if line.startswith(("AUTH", "MAIL", "DATA"))]
    with mail_server(Mood.PLAIN, certificate.server, login=login) as server, pytest.raises(Transient):
        mailing(server, SmtpTls.STARTTLS, certificate).send(NOTICE)
    assert not [line for line in server.seen if line.startswith(("AUTH", "MAIL", "DATA"))]
    with mail_server(tls=certificate.server, login=("user", "changed")) as server:
        channel = mailing(server, SmtpTls.STARTTLS, certificate)
        server.login = ("user", "geheim")
        with pytest.raises(Transient, match="login"):  # until somebody mends the password
            channel.send(NOTICE)


def channels(address: str, certificate: Certificate | None = None, timeout_s: float = PATIENCE_S) -> list[Channel]:
    tls = certificate.trust if certificate else None
    return [
        WebhookChannel(address, "geheim", CLOCK, tls=tls, timeout_s=timeout_s),
        SlackChannel(address, CLOCK, tls=tls, timeout_s=timeout_s),
    ]


def test_a_webhook_gets_the_notice_signed(certificate: Certificate) -> None:
    with web_server(Answer(202), tls=certificate.server) as server:
        channels(server.address, certificate)[0].send(NOTICE)
    ((path, headers, body),) = server.posts
    assert path == "/hook?room=1"
    expected = hmac.new(b"geheim", headers["tollgate-timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["tollgate-signature"] == f"v1={expected}"
    assert headers["tollgate-timestamp"] == str(CLOCK.now_us() // 1_000_000)
    document = json.loads(body)
    assert document["evidence"] == dict(NOTICE.evidence)
    assert (document["key"], document["severity"], document["link"]) == (NOTICE.dedup_key, "error", NOTICE.link)


def test_slack_gets_blocks_that_mention_nobody() -> None:
    with web_server(Answer(200)) as server:
        channels(server.address)[1].send(NOTICE)
    ((_, headers, body),) = server.posts
    assert headers["content-type"] == "application/json"
    document = json.loads(body)
    header, _, evidence, link = document["blocks"]
    assert header["text"] == {"type": "plain_text", "text": NOTICE.title, "emoji": False}
    assert "<!channel>" not in body.decode()
    assert "name: &lt;!channel&gt; *x*" in evidence["text"]["text"]
    assert link["text"]["text"] == "<https://drift.example/api/reports|Where to look>"


def test_slack_gets_no_more_than_it_takes() -> None:
    evidence = {f"name{number}": "<&>" * 60 for number in range(100)}
    long = Notice("k", Severity.ERROR, "<" * 200, dict(evidence), "https://x.test/a|b>c", 1)
    blocks = message(long)["blocks"]
    assert isinstance(blocks, list)
    assert len(blocks[0]["text"]["text"]) == 150
    assert len(blocks[2]["text"]["text"]) <= 3000
    assert blocks[2]["text"]["text"].endswith("...```")
    assert blocks[3]["text"]["text"] == "<https://x.test/a%7Cb%3Ec|Where to look>"


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(301, (("Location", "http://127.0.0.1:1/"),)), BrokenInvariant),
        (Answer(400), BrokenInvariant),
        (Answer(404), BrokenInvariant),
        (Answer(408), Transient),
        (Answer(429), Transient),
        (Answer(500), Transient),
        (Answer(0), Transient),
        (Answer(-1), Transient),
        (Answer(-2), Transient),
    ],
)
def test_how_a_web_server_fails_says_whether_to_come_again(
    which: int, answer: Answer, fault: type[TollgateError]
) -> None:
    timeout_s = SHORT_S if answer.status == -1 else PATIENCE_S
    with web_server(answer) as server, pytest.raises(fault) as caught:
        channels(server.address, timeout_s=timeout_s)[which].send(NOTICE)
    assert len(server.posts) == 1
    assert not isinstance(caught.value, Overloaded)
    assert "hook" not in str(caught.value)  # the address is a secret


@pytest.mark.parametrize(
    ("given", "wait_s"),
    [
        ("120", 120),
        ("Tue, 14 Nov 2023 22:15:20 GMT", 121),
        ("soon", None),
        ("-5", None),
        ("9" * 30, None),
        ("9" * 5_000, None),
        (f"Tue, 14 Nov {'9' * 30} 22:15:20 GMT", None),
        (f"Tue, 14 Nov 2023 {'9' * 30}:15:20 GMT", None),
        (f"Tue, 14 Nov 2023 22:15:20 +{'9' * 30}", None),
        ("Tue, 14 Nov 2023 22:15:20 +9999", None),
        ("Sun, 31 Dec 9999 23:59:59 -2359", None),
        ("Sat, 01 Jan 0100 00:00:00 +2359", 1),
    ],
)
def test_a_server_may_say_when_to_come_again(given: str, wait_s: int | None) -> None:
    with web_server(Answer(503, (("Retry-After", given),))) as server, pytest.raises(Transient) as caught:
        channels(server.address)[0].send(NOTICE)
    found = caught.value.retry_after_s if isinstance(caught.value, Overloaded) else None
    assert found == wait_s


def test_nobody_there_and_nobody_trusted_pass(certificate: Certificate) -> None:
    (port,) = free_ports(1)
    for channel in channels(f"http://{HOST}:{port}/hook"):
        with pytest.raises(Transient):
            channel.send(NOTICE)
    with pytest.raises(Transient):
        SmtpChannel(SmtpServer(HOST, port), "a@example.test", ("b@example.test",)).send(NOTICE)
    with web_server(tls=certificate.server) as server, pytest.raises(Transient):
        channels(server.address)[0].send(NOTICE)


@pytest.mark.parametrize(
    "address", ["", "ftp://x.test/", "https://", "http://x.test/a b", "http://x\r\nHost: y/", "http://x:99999/"]
)
def test_an_address_that_cannot_be_posted_to_is_refused_and_not_told(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be an address that begins with https:// or http://$"):
        checked_address(address)


@pytest.mark.parametrize("address", ["", "nobody", "@x.test", "a@", "a@x.test\r\nBcc: b@x.test", "a b@x.test"])
def test_a_mail_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="must"):
        SmtpChannel(SmtpServer(HOST, 25), "a@example.test", (address,))
