"""Node addresses: what a link is attached to."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from twin.broker.errors import Condition, LinkError


@dataclass(frozen=True, slots=True)
class CbsNode:
    """The node that takes tokens."""


@dataclass(frozen=True, slots=True)
class ManagementNode:
    """The node that answers questions about hubs and partitions."""


@dataclass(frozen=True, slots=True)
class PublishNode:
    """A hub to send to; `partition` is the text given, None when the broker chooses."""

    hub: str
    partition: str | None


@dataclass(frozen=True, slots=True)
class ReadNode:
    """A partition to read, as a consumer group."""

    hub: str
    group: str
    partition: str


Node = CbsNode | ManagementNode | PublishNode | ReadNode


def path_of(address: str) -> str:
    """The path of an address, with or without scheme and host in front: `amqps://host:1/hub` and `hub` are the same."""
    if "://" in address:
        try:
            address = urlsplit(address).path
        except ValueError as error:
            raise LinkError(Condition.NOT_FOUND, "the address is not a valid URL") from error
    return unquote(address).strip("/")


def parse(address: str, *, is_receiver: bool) -> Node:
    """What an address names, for a client that wants to receive or to send; words compare without case.

    Raises:
        LinkError: `amqp:not-found` for any other form.
    """
    segments = path_of(address).split("/")
    match [segment.lower() for segment in segments]:
        case ["$cbs"]:
            return CbsNode()
        case ["$management"] | [_, "$management"]:
            return ManagementNode()
        case [_] if segments[0] and not is_receiver:
            return PublishNode(segments[0], None)
        case [_, "partitions", _] if not is_receiver:
            return PublishNode(segments[0], segments[2])
        case [_, "consumergroups", _, "partitions", _] if is_receiver:
            return ReadNode(segments[0], segments[2], segments[4])
    raise LinkError(Condition.NOT_FOUND, f"The messaging entity '{address[:260]}' could not be found.")
