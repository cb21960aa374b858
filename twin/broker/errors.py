"""What can go wrong between a client and the broker.

    BrokerError
    |- LinkError           one link ends: refused at attach, or detached later
    |- ConnectionFault     the whole connection ends: its bytes cannot be trusted any more
    |- AppendFailed        events could not be stored: their delivery is rejected
    |- LogCorrupt          a stored record does not match its checksum or its neighbours
    |- ConfigInvalid       the settings break a rule
    |- NamespaceShrunk     the settings lack a hub or partitions that hold data
    |- PortTaken           somebody listens there already
    |- DataDirectoryTaken  another broker uses the data directory
    `- ProbeFailed         nobody answers a health check as a broker does

`codec.DecodeError` becomes a `ConnectionFault` where frames are read and a rejected delivery where events are read;
`tokens.TokenRefused` becomes a reply with status 401.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Condition(StrEnum):
    """Error conditions the broker uses.

    Source: OASIS AMQP 1.0 part 2.8.14 to 2.8.18 and, for `com.microsoft:*`, the names the Event Hubs SDKs know.
    """

    NOT_FOUND = "amqp:not-found"
    UNAUTHORIZED = "amqp:unauthorized-access"
    STOLEN = "amqp:link:stolen"
    RESOURCE_LIMIT = "amqp:resource-limit-exceeded"
    MESSAGE_SIZE = "amqp:link:message-size-exceeded"
    TRANSFER_LIMIT = "amqp:link:transfer-limit-exceeded"
    NOT_ALLOWED = "amqp:not-allowed"
    INTERNAL = "amqp:internal-error"
    DECODE = "amqp:decode-error"
    FRAMING = "amqp:connection:framing-error"
    FORCED = "amqp:connection:forced"
    ARGUMENT = "com.microsoft:argument-error"
    ARGUMENT_OUT_OF_RANGE = "com.microsoft:argument-out-of-range"


class BrokerError(Exception):
    """Any error of the broker's own."""


class LinkError(BrokerError):
    """One link cannot be attached, or cannot go on."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description


class ConnectionFault(BrokerError):
    """The connection cannot go on."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description


class LogCorrupt(BrokerError):
    """A stored record is damaged, and sound records follow it: cutting it off would lose acknowledged events."""

    def __init__(self, path: Path, position: int, sequence: int, reason: str) -> None:
        super().__init__(f"{path}: record {sequence} at byte {position} is corrupt: {reason}")
        self.path = path
        self.position = position
        self.sequence = sequence
