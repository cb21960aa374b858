"""Notices as JSON to a web address of the operator's, signed; and how any channel posts."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from shared.adapters.socket_deadline import cut_after
from shared.domain.errors import BrokenInvariant, Overloaded, Transient
from shared.domain.instants import US_PER_SECOND, format_instant
from shared.domain.pipeline import Notice
from shared.ports.clock import Clock

TIMEOUT_S: Final = 10.0
"""For connecting, and for the whole exchange after it."""

_RETRIED: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
"""Refusals that pass; any other 4xx says that the request itself is wrong (RFC 9110, 15.5)."""

_ADDRESS: Final = re.compile(r"https?://[!-~]+", re.IGNORECASE)
"""Printable ASCII alone, so that nothing of it can become another header."""


def checked_address(address: str) -> str:
    """The address, if it can be posted to.

    Raises:
        ValueError: It is no web address. The text does not quote it: it may be a secret.
    """
    try:
        parts = urlsplit(address)
        usable = _ADDRESS.fullmatch(address) and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an address that begins with https:// or http://")
    return address


def post_json(
    address: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    now_us: int,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Post a JSON body; returns when the server answered 2xx. Redirects are not followed.

    Args:
        address: Checked by `checked_address`; never part of an error's text.
        body: The JSON.
        headers: Beside `Content-Type`.
        now_us: For a `Retry-After` that is a date, microseconds since 1970 UTC.
        tls: Whom to trust; the system's authorities if None.
        timeout_s: For connecting, and again for the exchange.

    Raises:
        Overloaded: The server says when to come again.
        Transient: It cannot be reached, breaks off, is too slow, speaks no HTTP, or answers 408, 429 or 5xx.
        BrokenInvariant: It refuses.
    """
    parts = urlsplit(address)
    host, path = parts.hostname or "", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    if parts.scheme.lower() == "https":
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=tls)
    try:
        connection.connect()
        with cut_after(lambda: connection.sock, timeout_s):
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            with connection.getresponse() as answer:
                status, retry_after = answer.status, answer.getheader("Retry-After", "")
    except (OSError, http.client.HTTPException) as error:
        raise Transient(f"the server does not answer ({type(error).__name__})") from error
    finally:
        connection.close()
    _judge(status, retry_after, now_us)


def _judge(status: int, retry_after: str, now_us: int) -> None:
    if 200 <= status < 300:
        return
    if status in _RETRIED or status >= 500:
        wait_s = _seconds(retry_after, now_us)
        if wait_s is not None:
            raise Overloaded(f"the server answered {status}", wait_s)
        raise Transient(f"the server answered {status}")
    raise BrokenInvariant(f"the server refused with {status}")


def _seconds(retry_after: str, now_us: int) -> int | None:
    """The seconds that a `Retry-After` asks for: a number or a date (RFC 9110, 10.2.3); None if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    try:
        when = parsedate_to_datetime(text).astimezone(UTC)
    except (ValueError, OverflowError):  # the latter for a year, hour or zone of very many digits
        return None
    return int((when - datetime.fromtimestamp(now_us / US_PER_SECOND, UTC)).total_seconds()) + 1


def signature_of(secret: bytes, timestamp: str, body: bytes) -> str:
    """What the header `Tollgate-Signature` holds: HMAC-SHA256 of timestamp, a full stop and the body.

    >>> signature_of(b"key", "1700000000", b"{}")[:12]
    'v1=9d713ed40'
    """
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def notice_document(notice: Notice) -> dict[str, object]:
    """A notice as JSON for programs."""
    return {
        "type": "tollgate.notice",
        "key": notice.dedup_key,
        "severity": notice.severity.name.lower(),
        "title": notice.title,
        "evidence": dict(notice.evidence),
        "link": notice.link,
        "created_at": format_instant(notice.created_at_us),
    }


class WebhookChannel:
    """Posts the notice as it is. A receiver knows repeats by `key`, and us by the signature if there is a secret."""

    name = "webhook"

    def __init__(
        self,
        address: str,
        secret: str,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet.

        Args:
            address: Where to post to.
            secret: Key of the signature; empty for none.
            clock: For the signature's timestamp.
            tls: See `post_json`.
            timeout_s: See `post_json`.

        Raises:
            ValueError: The address is none.
        """
        self._address = checked_address(address)
        self._secret = secret.encode()
        self._clock = clock
        self._tls = tls
        self._timeout_s = timeout_s

    def send(self, notice: Notice) -> None:
        """Post one notice."""
        body = json.dumps(notice_document(notice), allow_nan=False, sort_keys=True).encode()
        now_us = self._clock.now_us()
        headers = {}
        if self._secret:
            timestamp = str(now_us // US_PER_SECOND)
            headers = {
                "Tollgate-Timestamp": timestamp,
                "Tollgate-Signature": signature_of(self._secret, timestamp, body),
            }
        post_json(self._address, body, headers, now_us=now_us, tls=self._tls, timeout_s=self._timeout_s)
