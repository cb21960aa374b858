"""HTTP requests that wait as they are told, within a deadline.

Standard library only. Connection errors, 408, 429 and 5xx are tried again until the deadline; `Retry-After` is obeyed.
Anything else is the caller's to judge.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

from infra.delivery.errors import DeliveryError

AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_PAUSE_S: Final = 30.0
SHOWN_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    Attributes:
        status: HTTP status.
        headers: Names in lower case.
        body: Undecoded.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body parsed; None if it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def text(self) -> str:
        """Return the beginning of the body for a message."""
        return self.body[:SHOWN_CHARACTERS].decode("utf-8", "replace").strip()


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, so that tests need not wait for it."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    wall: Callable[[], float] = field(default=time.time)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which nothing is tried again.

    Attributes:
        what: What is waited for, for the message.
        at: Monotonic time.
        clock: Time.
    """

    what: str
    at: float
    clock: Clock

    @classmethod
    def after(cls, seconds: float, what: str, clock: Clock) -> Deadline:
        """Return the deadline `seconds` from now."""
        return cls(what, clock.now() + seconds, clock)

    def pause(self, seconds: float, last: str) -> None:
        """Wait, or give up if the deadline would pass meanwhile.

        Raises:
            DeliveryError: It would.
        """
        if self.clock.now() + seconds >= self.at:
            raise DeliveryError(f"{self.what}: gave up waiting; last seen: {last}")
        self.clock.sleep(seconds)


def send(
    method: str,
    url: str,
    deadline: Deadline,
    *,
    headers: Callable[[], Mapping[str, str]] = dict,
    body: bytes | None = None,
    timeout_s: float = 60.0,
    also_again: frozenset[int] = frozenset(),
) -> Answer:
    """Send a request until it is answered with something else than "later".

    Args:
        method: HTTP method.
        url: `https:` address; `http:` for a loopback address only, which is what tests use.
        deadline: When to give up.
        headers: Asked for each attempt, because a token may end while one waits.
        body: What is sent.
        timeout_s: Of one attempt.
        also_again: Further statuses to try again, such as 403 while a role assignment spreads.

    Raises:
        DeliveryError: The deadline passed, or the address is not one to send a token to.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname == "127.0.0.1"):
        raise DeliveryError(f"{deadline.what}: {url} is not an https address")
    pause = 1.0
    while True:
        answer, problem = _attempt(method, url, dict(headers()), body, timeout_s)
        if answer is not None and answer.status not in AGAIN | also_again:
            return answer
        last = problem if answer is None else f"HTTP {answer.status} {answer.text()}"
        told = None if answer is None else _retry_after(answer, deadline.clock)
        deadline.pause(pause if told is None else told, last)
        pause = min(2 * pause, LONGEST_PAUSE_S)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token must not follow a redirect to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect())


def _attempt(
    method: str, url: str, headers: dict[str, str], body: bytes | None, timeout_s: float
) -> tuple[Answer | None, str]:
    request = urllib.request.Request(url, data=body, method=method, headers=headers)  # noqa: S310 - scheme checked above
    try:
        with _OPENER.open(request, timeout=timeout_s) as response:
            return Answer(response.status, _lower(response.headers), response.read()), ""
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _lower(error.headers), error.read()), ""
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        return None, f"no answer ({error})"


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _retry_after(answer: Answer, clock: Clock) -> float | None:
    """Return the seconds that a server asks to wait: a number, or a date."""
    value = answer.headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - clock.wall())
    except ValueError:
        return None
