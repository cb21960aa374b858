"""Probes: synthetic events that travel the real path, so that silence on the stream can be told from a broken one.

A probe is sent to the transactions hub like any transaction, is read by the ingest app, and leaves a receipt that the
score app can show. Its lag is what a transaction would have waited.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.domain.errors import InvalidInput
from shared.domain.event import StreamEvent

PROBE_TYPE = "tollgate.probe"
"""The `type` field that marks a probe on the stream."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", re.ASCII)
_MAX_TIME_US = 4_102_444_800_000_000  # 2100-01-01: later is a unit mistake, not a time


@dataclass(frozen=True, slots=True)
class Probe:
    """One synthetic event.

    Attributes:
        probe_id: 1 to 64 letters, digits and hyphens; the idempotency key of its receipt.
        sent_at_us: When it was sent, microseconds since 1970 UTC.
    """

    probe_id: str
    sent_at_us: int

    def to_fields(self) -> dict[str, object]:
        """The probe as the fields of an event body."""
        return {"type": PROBE_TYPE, "probe_id": self.probe_id, "sent_at_us": self.sent_at_us}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> Probe:
        """Read a probe from the fields of an event body.

        >>> Probe.from_fields({"type": "tollgate.probe", "probe_id": "a-1", "sent_at_us": 5})
        Probe(probe_id='a-1', sent_at_us=5)

        Raises:
            InvalidInput: A field is missing, unknown, of the wrong type or out of range.
        """
        for name in fields:
            if name not in {"type", "probe_id", "sent_at_us"}:
                raise InvalidInput(name[:64], "is not a field of a probe")
        sent_at_us = fields.get("sent_at_us")
        if isinstance(sent_at_us, bool) or not isinstance(sent_at_us, int):
            raise InvalidInput("sent_at_us", "must be a whole number of microseconds since 1970 UTC")
        if not 0 <= sent_at_us < _MAX_TIME_US:
            raise InvalidInput("sent_at_us", "must lie between 1970 and 2100, in microseconds")
        return cls(parse_probe_id(fields.get("probe_id")), sent_at_us)


@dataclass(frozen=True, slots=True)
class ProbeReceipt:
    """Proof that a probe went all the way, and how long each leg took.

    Attributes:
        probe: What was sent.
        hub: The hub it came through.
        partition: The partition it came through.
        sequence_number: Its position there.
        enqueued_at_us: When the stream accepted it, microseconds since 1970 UTC.
        received_at_us: When the ingest app read it, microseconds since 1970 UTC.
    """

    probe: Probe
    hub: str
    partition: str
    sequence_number: int
    enqueued_at_us: int
    received_at_us: int

    @property
    def lag_us(self) -> int:
        """Microseconds from sending to reading; never negative, although clocks of two machines may disagree."""
        return max(0, self.received_at_us - self.probe.sent_at_us)

    @classmethod
    def of(cls, probe: Probe, event: StreamEvent, received_at_us: int) -> ProbeReceipt:
        """The receipt of a probe that came as `event`."""
        return cls(probe, event.hub, event.partition, event.sequence_number, event.enqueued_at_us, received_at_us)


def parse_probe_id(value: object) -> str:
    """Check a probe id.

    Raises:
        InvalidInput: Not text, or not 1 to 64 ASCII letters, digits and hyphens.
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise InvalidInput("probe_id", "must be 1 to 64 letters, digits and hyphens, and not start with a hyphen")
    return value
