"""Sessions: the links of one channel, their delivery ids and the window of transfer frames.

Source: OASIS AMQP 1.0 part 2.5.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from twin.broker import addresses, management, messages, performatives, positions
from twin.broker.addresses import CbsNode, ManagementNode, Node, PublishNode, ReadNode
from twin.broker.codec import Described
from twin.broker.errors import Condition, ConnectionFault, LinkError
from twin.broker.framing import MIN_MAX_FRAME_SIZE
from twin.broker.hubs import Namespace
from twin.broker.links import (
    MAX_MESSAGE_SIZE,
    RUNTIME_METRIC,
    Link,
    PublishLink,
    ReadLink,
    ReplyLink,
    RequestLink,
)
from twin.broker.messages import Request
from twin.broker.performatives import TRANSFER_OVERHEAD, Attach, Begin, Detach, Flow, Transfer
from twin.broker.tokens import Grants, TokenRefused, TokenVerifier, expired_text

HANDLE_MAX: Final = 255
_MAX_GRANTS: Final = 256
"""Resources one connection may hold tokens for."""
_NARROW_WINDOW: Final = MAX_MESSAGE_SIZE // (MIN_MAX_FRAME_SIZE - TRANSFER_OVERHEAD) + 2
"""Frames the largest delivery may need; with a smaller window left, a link may be waiting for more."""
_U32: Final = 0xFFFFFFFF
_EPOCH: Final = "com.microsoft:epoch"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long, in seconds, a client may take until it has a token, and how long it may say nothing.

    Defaults: the service's own, as its AMQP protocol guide tells them.
    """

    handshake_s: float = 20
    idle_s: float = 240


@dataclass(frozen=True, slots=True)
class Services:
    """What sessions lean on, the same for all connections; `clock` is Unix time in seconds."""

    namespace: Namespace
    verifier: TokenVerifier
    timeouts: Timeouts = Timeouts()
    clock: Callable[[], float] = time.time


class Wire(Protocol):
    """What a session needs of its connection."""

    @property
    def can_send(self) -> bool:
        """Whether the socket takes more."""

    @property
    def frame_room(self) -> int:
        """Payload bytes that fit in a frame for this client."""

    @property
    def grants(self) -> Grants:
        """The access this connection has."""

    def send(self, data: bytes) -> None:
        """Send an encoded frame."""

    def reserve(self, size: int) -> bool:
        """Set aside memory for an incomplete delivery; False when there is too much of it."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run something later in this turn of the event loop."""


class Session:
    """One begun channel."""

    def __init__(self, wire: Wire, services: Services, channel: int, begin: Begin) -> None:
        self.number = channel
        self._wire = wire
        self._services = services
        self._next_incoming_id = begin.next_outgoing_id
        self._next_outgoing_id = 0
        self._remote_window = begin.incoming_window
        self._delivery_id = 0
        self._links: dict[int, Link] = {}
        wire.send(performatives.begun(channel, HANDLE_MAX))

    # -------------------------------------------------------------------------------------------- for links

    @property
    def can_send(self) -> bool:
        """Whether the socket takes more."""
        return self._wire.can_send

    @property
    def frame_room(self) -> int:
        """Payload bytes that fit in a frame for this client."""
        return self._wire.frame_room

    @property
    def window(self) -> int:
        """Transfer frames the client takes now."""
        return self._remote_window

    def send(self, data: bytes) -> None:
        """Send an encoded frame."""
        self._wire.send(data)

    def send_flow(self, link: tuple[int, int, int], *, drain: bool = False) -> None:
        """Send the state (handle, delivery count, credit) of a link."""
        self.send(performatives.flow(self.number, self._next_incoming_id, self._next_outgoing_id, link, drain=drain))

    def next_delivery(self, frames: int) -> int:
        """Take the next delivery id for a delivery of so many frames."""
        delivery_id = self._delivery_id
        self._delivery_id = (delivery_id + 1) & _U32
        self._next_outgoing_id = (self._next_outgoing_id + frames) & _U32
        self._remote_window -= frames
        return delivery_id

    def reserve(self, size: int) -> bool:
        """Set aside memory for an incomplete delivery; False when the connection has too much of it."""
        return self._wire.reserve(size)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run something later in this turn of the event loop."""
        self._wire.call_soon(callback)

    def end_link(self, link: Link, error: LinkError) -> None:
        """Detach a link with an error; harmless when it is gone already."""
        if self._links.get(link.handle) is link:
            del self._links[link.handle]
            link.close()
            self.send(performatives.detached(self.number, link.handle, (error.condition, error.description)))

    # -------------------------------------------------------------------------------------------- from the connection

    def on_flow(self, flow: Flow) -> None:
        """Take over the client's window and, with a handle, the credit of a link."""
        was_narrow = self._remote_window < _NARROW_WINDOW
        window = (flow.next_incoming_id + flow.incoming_window - self._next_outgoing_id) & _U32
        # Frames under way may exceed a window the client has just narrowed; the difference wraps around.
        self._remote_window = window if window <= flow.incoming_window else 0
        self._next_incoming_id = flow.next_outgoing_id
        if flow.handle is not None:
            link = self._links.get(flow.handle)
            if link is not None:
                link.on_flow(flow)
        elif flow.echo:
            self.send(performatives.flow(self.number, self._next_incoming_id, self._next_outgoing_id))
        if was_narrow:
            # The window belongs to all links of the session, and some may have waited for it.
            self.on_writable()

    def on_writable(self) -> None:
        """The socket or the window takes more."""
        for link in tuple(self._links.values()):
            link.on_writable()

    def on_transfer(self, transfer: Transfer) -> None:
        """Hand a frame to its link; one for a link that has just ended is dropped."""
        self._next_incoming_id = (self._next_incoming_id + 1) & _U32
        link = self._links.get(transfer.handle)
        if link is None:
            return
        try:
            link.on_transfer(transfer)
        except LinkError as error:
            self.end_link(link, error)

    def on_detach(self, detach: Detach) -> None:
        """The client ends a link."""
        link = self._links.pop(detach.handle, None)
        if link is not None:
            link.close()
            self.send(performatives.detached(self.number, detach.handle, closed=detach.closed))

    def close(self) -> None:
        """End all links without a word: the session or the connection is gone."""
        links, self._links = self._links, {}
        for link in links.values():
            link.close()

    def expire(self, now: float) -> None:
        """Detach the links whose token has expired; the connection stays, as in the service."""
        for link in tuple(self._links.values()):
            if link.resource is None:
                continue
            expiry = self._wire.grants.expiry_for(link.resource)
            if expiry is not None and expiry <= now:
                self.end_link(link, LinkError(Condition.UNAUTHORIZED, expired_text(expiry)))

    # -------------------------------------------------------------------------------------------- attach

    def on_attach(self, attach: Attach) -> None:
        """Attach a link, or refuse it: a refusal is an attach, so that the client has a link, and then a detach.

        Raises:
            ConnectionFault: a handle in use or too high.
        """
        if attach.handle > HANDLE_MAX or attach.handle in self._links:
            raise ConnectionFault(Condition.NOT_ALLOWED, f"handle {attach.handle} is in use or above {HANDLE_MAX}")
        terminus = attach.source if attach.is_receiver else attach.target
        address = terminus.address or ""
        link: Link | None = None
        try:
            # Displaced readers are told before the new one hears that it is attached.
            link, begin = self._link_for(attach, address)
        except LinkError as error:
            self._send_attached(attach, address)
            failure = (error.condition, error.description)
            self.send(performatives.detached(self.number, attach.handle, failure))
            return
        self._links[attach.handle] = link
        self._send_attached(attach, address)
        begin()

    def _send_attached(self, attach: Attach, address: str) -> None:
        offered = (RUNTIME_METRIC,) if attach.is_receiver and RUNTIME_METRIC in attach.desired_capabilities else ()
        self.send(performatives.attached(self.number, attach, _path(address), MAX_MESSAGE_SIZE, offered))

    def _link_for(self, attach: Attach, address: str) -> tuple[Link, Callable[[], None]]:
        """The link for an attach, and what starts it once the client knows that it is attached."""
        match addresses.parse(address, is_receiver=attach.is_receiver):
            case CbsNode():
                return self._control(attach, CbsNode, self._put_token)
            case ManagementNode():
                if not self._wire.grants:
                    raise _no_token()
                return self._control(attach, ManagementNode, self._manage)
            case PublishNode() as node:
                publish = self._publish_link(attach, node, address)
                return publish, publish.grant
            case ReadNode() as node:
                return self._read_link(attach, node, address)

    def _control(
        self, attach: Attach, node: type[Node], answer: Callable[[Request], bytes]
    ) -> tuple[Link, Callable[[], None]]:
        if attach.is_receiver:
            replies = ReplyLink(self, attach, node)
            return replies, replies.pump
        requests = RequestLink(self, attach, answer, lambda address: self._reply_link(node, address))
        return requests, requests.grant

    def _reply_link(self, node: type[Node], address: str | None) -> ReplyLink | None:
        """The link of this session to reply on for a node: the one named, else the newest."""
        candidates = [link for link in self._links.values() if isinstance(link, ReplyLink) and link.node is node]
        named = [link for link in candidates if address is not None and link.address == address]
        return next(reversed(named or candidates), None)

    def _publish_link(self, attach: Attach, node: PublishNode, address: str) -> PublishLink:
        resource = self._authorise(address)
        hub = self._services.namespace.hub(node.hub)
        partition = None if node.partition is None else hub.partition(node.partition)
        return PublishLink(self, attach, resource, hub, partition)

    def _read_link(self, attach: Attach, node: ReadNode, address: str) -> tuple[ReadLink, Callable[[], None]]:
        resource = self._authorise(address)
        hub = self._services.namespace.hub(node.hub)
        group = hub.group(node.group)
        partition = hub.partition(node.partition)
        position = positions.parse_filter(_selector(attach.source.filters))
        sequence = positions.resolve(position, partition.log)
        link = ReadLink(self, attach, resource, partition, group=group, epoch=_epoch(attach.properties))
        partition.claim(group, link)
        return link, lambda: link.start(sequence)

    def _authorise(self, address: str) -> str:
        """The resource path of an address this connection may use.

        Raises:
            LinkError: `amqp:unauthorized-access` without a token for it, or with an expired one.
        """
        resource = _path(address).lower()
        expiry = self._wire.grants.expiry_for(resource)
        if expiry is None:
            raise _no_token()
        if expiry <= self._services.clock():
            raise LinkError(Condition.UNAUTHORIZED, expired_text(expiry))
        return resource

    # -------------------------------------------------------------------------------------------- control nodes

    def _put_token(self, request: Request) -> bytes:
        if request.text("operation") != "put-token":
            return messages.reply(request, 400, "Only put-token is supported.")
        try:
            grant = self._services.verifier.verify(request.text("type"), request.body, request.text("name"))
        except TokenRefused as refusal:
            return messages.reply(request, 401, str(refusal))
        if not self._wire.grants.put(grant, _MAX_GRANTS):
            return messages.reply(request, 403, f"More than {_MAX_GRANTS} resources on one connection.")
        return messages.reply(request, 202, "Accepted")

    def _manage(self, request: Request) -> bytes:
        hub = request.text("name").lower()
        expiry = self._wire.grants.expiry_for(f"{hub}/$management")
        if expiry is None or expiry <= self._services.clock():
            return messages.reply(request, 401, "Unauthorized access. A token for the hub is required.")
        return management.answer(request, self._services.namespace)


def _no_token() -> LinkError:
    return LinkError(Condition.UNAUTHORIZED, "Unauthorized access. A token for this entity is required; see put-token.")


def _path(address: str) -> str:
    """The path of an address to show and compare; empty when it cannot be read."""
    try:
        return addresses.path_of(address)
    except LinkError:
        return ""


def _selector(filters: dict[object, object]) -> str | None:
    value = filters.get(positions.FILTER_NAME)
    if isinstance(value, Described):
        value = value.value
    if value is not None and not isinstance(value, str):
        raise LinkError(Condition.ARGUMENT, "the selector filter must be text")
    return value


def _epoch(properties: dict[object, object]) -> int | None:
    value = properties.get(_EPOCH)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise LinkError(Condition.ARGUMENT, "the epoch must be an integer")
    return value
