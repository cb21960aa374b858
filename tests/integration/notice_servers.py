"""Mail and web servers on loopback that take what is sent, and fail in the ways that servers fail."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import socket
import socketserver
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for loopback that nobody else trusts."""

    path: Path

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.path))


def make_certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "notices")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return Certificate(path)


class Mood(Enum):
    """How a mail server behaves."""

    WELL = auto()
    BUSY = auto()  # 421 as a greeting
    GREY = auto()  # takes no recipient now
    REFUSES_ALL = auto()
    REFUSES_SECOND = auto()
    REFUSES_BODY = auto()
    BREAKS_OFF = auto()  # after the body, before saying whether it took it
    NO_GOODBYE = auto()  # took it, then breaks off
    GARBAGE = auto()
    BABBLES = auto()  # a line that is longer than any may be
    DRIPS = auto()  # a line that never ends, a byte now and then
    PLAIN = auto()  # offers no encryption


@dataclass
class MailServer:
    """Takes mail by SMTP (RFC 5321) as far as a client that submits notices needs it.

    Attributes:
        mood: How it behaves.
        tls: For STARTTLS, and from the start if `implicit`.
        login: User and password it wants; None wants none.
        letters: What was taken.
        recipients: Of each letter.
        seen: Commands that were received, all connections.
    """

    mood: Mood
    tls: ssl.SSLContext | None = None
    implicit: bool = False
    login: tuple[str, str] | None = None
    letters: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    port: int = 0

    def converse(self, connection: socket.socket) -> None:
        """Serve one client; what is open is closed at the end."""
        with ExitStack() as opened:
            self._converse(connection, opened)

    def _converse(self, connection: socket.socket, opened: ExitStack) -> None:
        if self.implicit and self.tls is not None:
            connection = opened.enter_context(self.tls.wrap_socket(connection, server_side=True))
        stream = opened.enter_context(connection.makefile("rwb", buffering=0))

        def say(text: str) -> None:
            stream.write(text.encode() + b"\r\n")

        if self.mood is Mood.GARBAGE:
            stream.write(bytes(range(256)) * 8 + b"\r\n")
            return
        if self.mood is Mood.BABBLES:
            stream.write(b"220 " + b"x" * 20_000 + b"\r\n")
            return
        if self.mood is Mood.DRIPS:
            while True:  # until the client hangs up, which is an OSError here
                stream.write(b"2")
                time.sleep(0.05)
        if self.mood is Mood.BUSY:
            say("421 too many")
            return
        say("220 loopback")
        encrypted, known, to = self.implicit, self.login is None, list[str]()
        while line := stream.readline().decode("latin-1").rstrip("\r\n"):
            self.seen.append(line)
            verb = line.split(" ", 1)[0].upper()
            if verb in {"EHLO", "HELO"}:
                offers = ["STARTTLS"] if self.tls and not encrypted and self.mood is not Mood.PLAIN else []
                offers += ["AUTH PLAIN"] if self.login and encrypted else []
                lines = ["loopback", *offers, "SIZE 1000000"]
                for place, text in enumerate(lines):
                    say(f"250{' ' if place == len(lines) - 1 else '-'}{text}")
            elif self.mood is Mood.PLAIN and verb == "STARTTLS":
                say("502 not here")
            elif verb == "STARTTLS" and self.tls is not None:
                say("220 go ahead")
                connection = opened.enter_context(self.tls.wrap_socket(connection, server_side=True))
                stream, encrypted = opened.enter_context(connection.makefile("rwb", buffering=0)), True
            elif verb == "AUTH":
                given = base64.b64decode(line.split(" ")[2]).decode().split("\0")[1:]
                known = self.login == tuple(given)
                say("235 welcome" if known else "535 who are you")
            elif not known:
                say("530 log in first")
            elif verb == "RCPT":
                refused = self.mood is Mood.REFUSES_ALL or (self.mood is Mood.REFUSES_SECOND and to)
                if self.mood is Mood.GREY:
                    say("450 come again")
                elif refused:
                    say("550 nobody here")
                else:
                    to.append(line.partition("<")[2].partition(">")[0])
                    say("250 ok")
            elif verb == "DATA":
                say("354 go on")
                body = bytearray()
                while (part := stream.readline()) != b".\r\n":
                    body += part.removeprefix(b".") if part.startswith(b"..") else part
                if self.mood is Mood.BREAKS_OFF:
                    return
                if self.mood is Mood.REFUSES_BODY:
                    say("554 spam")
                    continue
                self.letters.append(message_from_bytes(bytes(body), _class=EmailMessage, policy=policy.default))
                self.recipients.append(to)
                say("250 taken")
                if self.mood is Mood.NO_GOODBYE:
                    return
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


@contextmanager
def mail_server(
    mood: Mood = Mood.WELL,
    tls: ssl.SSLContext | None = None,
    *,
    implicit: bool = False,
    login: tuple[str, str] | None = None,
) -> Iterator[MailServer]:
    """A mail server on a port of its own, until the block ends."""
    server = MailServer(mood, tls, implicit, login)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                server.converse(self.request)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Listener((HOST, 0), Handler) as listener:
        server.port = listener.server_address[1]
        Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        listener.shutdown()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a web server answers.

    Attributes:
        status: The HTTP status; 0 answers what is no HTTP, -1 drips a header that never ends, -2 hangs up.
        headers: Beside the length.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class WebServer:
    """Takes posts; answers in the order of `answers`, the last one for ever."""

    answers: list[Answer]
    posts: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    address: str = ""


@contextmanager
def web_server(*answers: Answer, tls: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """A web server on a port of its own, until the block ends."""
    server = WebServer(list(answers or (Answer(204),)))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.posts.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            self.close_connection = True
            if answer.status == 0:
                self.wfile.write(bytes(range(255, 0, -1)) * 4 + b"\r\n")
            elif answer.status == -1:
                with suppress(OSError):
                    while True:  # until the client hangs up
                        self.wfile.write(b"H")
                        time.sleep(0.05)
            elif answer.status > 0:
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Listener(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Listener((HOST, 0), Handler) as listener:
        if tls is not None:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True)
        server.address = f"http{'s' if tls else ''}://{HOST}:{listener.server_address[1]}/hook?room=1"
        Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        listener.shutdown()
