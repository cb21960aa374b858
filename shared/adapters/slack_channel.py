"""Notices to Slack, through an incoming webhook."""

from __future__ import annotations

import json
import ssl
from typing import Final
from urllib.parse import quote

from shared.adapters.webhook_channel import TIMEOUT_S, checked_address, post_json
from shared.domain.pipeline import Notice
from shared.ports.clock import Clock
from shared.services.notifying_text import evidence_lines, shortened, when

MAX_HEADER: Final = 150
"""Characters of a header block (https://docs.slack.dev/reference/block-kit/blocks/header-block)."""

MAX_SECTION: Final = 2_900
"""Characters of a section's text, of which Slack takes 3,000
(https://docs.slack.dev/reference/block-kit/blocks/section-block)."""


def _escaped(text: str) -> str:
    """Text in which Slack finds no link, mention or markup (https://docs.slack.dev/messaging/formatting-message-text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def message(notice: Notice) -> dict[str, object]:
    """A notice as blocks; what it says cannot mention people or hide links."""
    severity = notice.severity.name.lower()
    blocks: list[dict[str, object]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": shortened(notice.title, MAX_HEADER), "emoji": False},
        },
        _section(f"*{severity}* at {when(notice.created_at_us)}"),
    ]
    if notice.evidence:
        quoted = "\n".join(evidence_lines(notice.evidence)).replace("```", "'''")
        blocks.append(_section(f"```{_shortened_escaped(quoted)}```"))
    if notice.link.startswith(("https://", "http://")):
        blocks.append(_section(f"<{quote(notice.link, safe=_LINK)}|Where to look>"))
    elif notice.link:
        blocks.append({"type": "section", "text": {"type": "plain_text", "text": notice.link, "emoji": False}})
    return {"text": _escaped(f"{severity}: {notice.title}"), "blocks": blocks}


_LINK: Final = ":/?#[]@!$&'()*+,;=%~-._"
"""Of a link everything but what would end it in Slack's markup: `<`, `>` and `|`."""


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _shortened_escaped(text: str) -> str:
    """Escaping lengthens; what is cut is cut before, so that no entity is left in halves."""
    room = MAX_SECTION
    while len(_escaped(shortened(text, room))) > MAX_SECTION:
        room = room * 3 // 4
    return _escaped(shortened(text, room))


class SlackChannel:
    """Posts to the address that Slack gave for one room; the address itself is the secret."""

    name = "slack"

    def __init__(
        self,
        address: str,
        clock: Clock,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Connect to nothing yet; raises ValueError if the address is none."""
        self._address = checked_address(address)
        self._clock = clock
        self._tls = tls
        self._timeout_s = timeout_s

    def send(self, notice: Notice) -> None:
        """Post one notice."""
        body = json.dumps(message(notice)).encode()
        post_json(self._address, body, {}, now_us=self._clock.now_us(), tls=self._tls, timeout_s=self._timeout_s)
