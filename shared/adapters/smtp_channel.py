"""Notices by e-mail: plain text and HTML, through a server that takes mail from us."""

from __future__ import annotations

import hashlib
import html
import logging
import smtplib
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from enum import StrEnum
from typing import Final

from shared.adapters.socket_deadline import cut_after
from shared.domain.errors import BrokenInvariant, TollgateError, Transient
from shared.domain.instants import US_PER_SECOND
from shared.domain.pipeline import Notice
from shared.services.notifying_text import evidence_lines, one_line, when
from shared.telemetry import with_fields

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0
"""For connecting, and for the whole exchange after it."""


LOGIN_WANTED: Final = 530
"""A server's answer to whoever has not logged in (RFC 4954, 6)."""


class SmtpTls(StrEnum):
    """How the connection to the server is protected."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Who takes our mail.

    Attributes:
        host: Its name.
        port: 587 for STARTTLS, 465 for TLS from the start.
        tls: How it is protected.
        user: Login; empty for none.
        password: Of the login.
    """

    host: str
    port: int
    tls: SmtpTls = SmtpTls.STARTTLS
    user: str = ""
    password: str = field(default="", repr=False)


def mail_address(text: str) -> Address:
    """A mail address.

    Raises:
        ValueError: It is none, or holds what could become another header.
    """
    if text != one_line(text):
        raise ValueError("must hold no control characters")
    try:
        address = Address(addr_spec=text)
    except Exception as error:  # the library raises many kinds, IndexError among them
        raise ValueError("must be a mail address") from error
    if not address.username or not address.domain:
        raise ValueError("must be a mail address")
    return address


def mail(notice: Notice, sender: Address, recipients: tuple[Address, ...]) -> EmailMessage:
    """A notice as a mail; the same notice has the same `Message-ID`, so that a repeat is known as one."""
    severity = notice.severity.name.lower()
    letter = EmailMessage()
    letter["From"] = sender
    letter["To"] = recipients
    letter["Subject"] = f"[Tollgate] {severity}: {one_line(notice.title)}"
    letter["Date"] = datetime.fromtimestamp(notice.created_at_us // US_PER_SECOND, UTC)
    name = hashlib.sha256(f"{notice.created_at_us}/{notice.dedup_key}".encode()).hexdigest()[:32]
    letter["Message-ID"] = f"<{name}@{sender.domain}>"
    letter["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence note answers it
    if notice.severity.name == "CRITICAL":
        letter["Importance"] = "high"
    lines, link = evidence_lines(notice.evidence), one_line(notice.link)
    head = f"{severity} at {when(notice.created_at_us)}"
    letter.set_content("\n".join([one_line(notice.title), head, "", *lines, *(["", link] if link else []), ""]))
    letter.add_alternative(_html(one_line(notice.title), head, lines, link), subtype="html")
    return letter


def _html(title: str, head: str, lines: list[str], link: str) -> str:
    rows = "".join(
        f'<tr><td style="padding:2px 12px 2px 0;color:#555">{html.escape(name)}</td>'
        f'<td style="padding:2px 0">{html.escape(value)}</td></tr>'
        for name, _, value in (line.partition(": ") for line in lines)
    )
    shown = html.escape(link)
    if link.startswith(("https://", "http://")):
        shown = f'<a href="{shown}">{shown}</a>'
    return (
        '<!doctype html><html lang="en"><body style="font:15px/1.5 sans-serif">'
        f'<h1 style="font-size:18px">{html.escape(title)}</h1><p>{html.escape(head)}</p>'
        f"<table>{rows}</table><p>{shown}</p></body></html>\n"
    )


class SmtpChannel:
    """Sends each notice over a connection of its own; there are few of them."""

    name = "mail"

    def __init__(
        self,
        server: SmtpServer,
        sender: str,
        recipients: tuple[str, ...],
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet.

        Args:
            server: Who takes the mail.
            sender: The address it is from.
            recipients: The addresses it goes to.
            tls: Whom to trust; the system's authorities if None.
            timeout_s: For connecting, and again for the exchange.

        Raises:
            ValueError: An address is none.
        """
        self._server = server
        self._sender = mail_address(sender)
        self._recipients = tuple(mail_address(text) for text in recipients)
        self._tls = tls
        self._timeout_s = timeout_s

    def send(self, notice: Notice) -> None:
        """Send one notice to all recipients."""
        letter = mail(notice, self._sender, self._recipients)
        try:
            refused = self._deliver(letter)
        except (smtplib.SMTPException, OSError) as error:
            raise meaning(error) from error
        if refused:
            # The others have it; sending again would tell them twice.
            _log.error(with_fields("a mail server refused recipients", refused=len(refused)))

    def _deliver(self, letter: EmailMessage) -> Mapping[str, tuple[int, bytes]]:
        """Hand a mail over; returns the recipients that were refused, if some were taken."""
        server = self._server
        client = smtplib.SMTP(local_hostname=self._sender.domain)
        client.sock = socket.create_connection((server.host, server.port), self._timeout_s)
        try:
            with cut_after(lambda: client.sock, self._timeout_s):
                if server.tls is SmtpTls.TLS:
                    client.sock = self._encrypted(client.sock)
                _expect(220, client.getreply())
                if server.tls is SmtpTls.STARTTLS:
                    client.ehlo_or_helo_if_needed()
                    _expect(220, client.docmd("STARTTLS"))
                    client.sock, client.file = self._encrypted(client.sock), None
                    # What the server said before it could be trusted is forgotten (RFC 3207, 4.2).
                    client.helo_resp = client.ehlo_resp = None
                    client.esmtp_features, client.does_esmtp = {}, False
                if server.user:
                    client.login(server.user, server.password)
                refused = client.send_message(letter)
                with suppress(smtplib.SMTPException, OSError):  # it is delivered, whatever the goodbye is
                    client.quit()
            return refused
        finally:
            client.close()

    def _encrypted(self, connection: socket.socket) -> ssl.SSLSocket:
        context = self._tls or ssl.create_default_context()
        return context.wrap_socket(connection, server_hostname=self._server.host)


def _expect(code: int, reply: tuple[int, bytes]) -> None:
    """Before the mail itself nothing is refused for good: what is wrong with a server can be mended."""
    if reply[0] != code:
        raise smtplib.SMTPConnectError(*reply)


def meaning(error: Exception) -> TollgateError:
    """What an error of the mail library stands for.

    Only what a server says of the sender, all recipients or the text is refused for good. A refused login passes:
    notices wait until somebody mends the password. So does a server that offers no encryption, or talks rubbish.
    """
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = {code for code, _ in error.recipients.values()}
        if codes and all(500 <= code < 600 for code in codes):
            return BrokenInvariant(f"the mail server refuses all recipients ({min(codes)})")
        return Transient("the mail server takes no recipient now")
    if isinstance(error, (smtplib.SMTPSenderRefused, smtplib.SMTPDataError)):
        if 500 <= error.smtp_code < 600 and error.smtp_code != LOGIN_WANTED:
            return BrokenInvariant(f"the mail server refused with {error.smtp_code}")
        return Transient(f"the mail server answered {error.smtp_code}")
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return Transient("the mail server refuses the login")
    return Transient(f"the mail server does not answer ({type(error).__name__})")
