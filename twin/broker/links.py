"""Links: one direction of messages between a client and a node.

    Link
    |- IncomingLink        the client sends; deliveries are put together from frames
    |  |- PublishLink      events to a hub
    |  `- RequestLink      requests to a control node
    `- OutgoingLink        the client receives; credit and windows are respected
       |- ReadLink         events of a partition
       `- ReplyLink        replies of a control node

Source: OASIS AMQP 1.0 part 2.6 (links, flow control, deliveries).
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twin.broker import codec, messages, performatives
from twin.broker.addresses import Node
from twin.broker.codec import DecodeError
from twin.broker.errors import Condition, LinkError, LogCorrupt
from twin.broker.hubs import Hub, Partition
from twin.broker.messages import Request
from twin.broker.partition_log import AppendFailed, Cursor
from twin.broker.performatives import Attach, Flow, Transfer
from twin.broker.segments import StoredEvent

_log = logging.getLogger(__name__)

MAX_MESSAGE_SIZE: Final = 1024 * 1024
"""Bytes of one message or batch, as in the service's standard tier; the SDKs' `create_batch` keeps to it."""
INCOMING_CREDIT: Final = 1000
"""Deliveries a client may have under way per link; topped up when half is used."""
_TURN_EVENTS: Final = 256
"""Events a reader gets before others have their turn on the event loop."""
_MAX_PENDING_REPLIES: Final = 64
_U32: Final = 0xFFFFFFFF
RUNTIME_METRIC: Final = "com.microsoft:enable-receiver-runtime-metric"


class Channel(Protocol):
    """What a link needs of its session."""

    @property
    def number(self) -> int:
        """The channel number."""

    @property
    def can_send(self) -> bool:
        """Whether the socket takes more; when it does again, `on_writable` of each link is called."""

    @property
    def frame_room(self) -> int:
        """Payload bytes that fit in a frame for this client."""

    @property
    def window(self) -> int:
        """Transfer frames the client takes now."""

    def send(self, data: bytes) -> None:
        """Send an encoded frame."""

    def send_flow(self, link: tuple[int, int, int], *, drain: bool = False) -> None:
        """Send the state (handle, delivery count, credit) of a link."""

    def next_delivery(self, frames: int) -> int:
        """Take the next delivery id for a delivery of so many frames."""

    def reserve(self, size: int) -> bool:
        """Set aside memory for an incomplete delivery (negative: give back); False when the connection has too much."""

    def end_link(self, link: Link, error: LinkError) -> None:
        """Detach a link with an error."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run something later in this turn of the event loop."""


class Link:
    """What all links have in common."""

    def __init__(self, channel: Channel, attach: Attach, resource: str | None) -> None:
        """Set up; `resource` is the path (lower case) that a token must cover while the link lives, None for none."""
        self.channel = channel
        self.handle = attach.handle
        self.resource = resource
        self.is_open = True

    def on_flow(self, flow: Flow) -> None:
        """The client told credit; a flow on a sender's own handle means nothing and is ignored."""

    def on_transfer(self, transfer: Transfer) -> None:  # noqa: ARG002 -- incoming links use it
        """A frame of a delivery came; only incoming links have deliveries.

        Raises:
            LinkError: the client sends on a link it receives from.
        """
        raise LinkError(Condition.NOT_ALLOWED, "this link does not take messages")

    def on_writable(self) -> None:
        """The socket or the session window takes more."""

    def close(self) -> None:
        """Give up what the link holds; called once, whichever side ended it."""
        self.is_open = False


# ------------------------------------------------------------------------------------------------ incoming


class IncomingLink(Link, ABC):
    """A link the client sends on."""

    def __init__(self, channel: Channel, attach: Attach, resource: str | None) -> None:
        super().__init__(channel, attach, resource)
        self._delivery_count = 0
        self._credit = 0
        self._first: Transfer | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def grant(self) -> None:
        """Top the client's credit up."""
        self._credit = INCOMING_CREDIT
        self.channel.send_flow((self.handle, self._delivery_count, self._credit))

    def on_transfer(self, transfer: Transfer) -> None:
        """Put a delivery together and hand it on when complete.

        Raises:
            LinkError: larger than `MAX_MESSAGE_SIZE`, sent without credit, or without a delivery id.
        """
        first = self._first
        if first is None:
            first = self._first = self._begin(transfer)
        if transfer.aborted:
            self._reset()
            return
        self._size += len(transfer.payload)
        if self._size > MAX_MESSAGE_SIZE:
            text = f"The message is larger than the limit of {MAX_MESSAGE_SIZE} bytes."
            raise LinkError(Condition.MESSAGE_SIZE, text)
        if transfer.more:
            if not self.channel.reserve(len(transfer.payload)):
                raise LinkError(Condition.RESOURCE_LIMIT, "Too many incomplete messages on this connection.")
            self._parts.append(transfer.payload)
            return
        payload = b"".join((*self._parts, transfer.payload)) if self._parts else transfer.payload
        self._reset()
        self._receive(first, payload)
        if self.is_open and self._credit <= INCOMING_CREDIT // 2:
            self.grant()

    def _begin(self, transfer: Transfer) -> Transfer:
        if transfer.delivery_id is None:
            raise LinkError(Condition.NOT_ALLOWED, "the first frame of a delivery must have a delivery id")
        if self._credit == 0:
            raise LinkError(Condition.TRANSFER_LIMIT, "sent without credit")
        self._credit -= 1
        self._delivery_count = (self._delivery_count + 1) & _U32
        return transfer

    def _reset(self) -> None:
        if self._parts:
            self.channel.reserve(-sum(map(len, self._parts)))
            self._parts = []
        self._first, self._size = None, 0

    def settle(self, first: Transfer, outcome: bytes) -> None:
        """Tell the client what became of a delivery, unless it does not want to know."""
        if self.is_open and not first.settled and first.delivery_id is not None:
            self.channel.send(performatives.disposition(self.channel.number, first.delivery_id, outcome))

    @abstractmethod
    def _receive(self, first: Transfer, payload: bytes) -> None:
        """Take a whole delivery."""

    def close(self) -> None:
        """Give back the memory of an incomplete delivery."""
        super().close()
        self._reset()


class PublishLink(IncomingLink):
    """Events to a hub, or to one of its partitions."""

    def __init__(self, channel: Channel, attach: Attach, resource: str, hub: Hub, partition: Partition | None) -> None:
        super().__init__(channel, attach, resource)
        self._hub = hub
        self._partition = partition

    def _receive(self, first: Transfer, payload: bytes) -> None:
        try:
            if first.message_format == messages.BATCH_FORMAT:
                events = messages.parse_batch(payload)
            else:
                events = [messages.parse_event(payload)]
        except DecodeError as error:
            self.settle(first, performatives.rejected(Condition.DECODE, str(error)))
            return
        self._hub.publish(events, self._partition, lambda failure: self._on_durable(first, failure))

    def _on_durable(self, first: Transfer, failure: AppendFailed | None) -> None:
        if failure is None:
            self.settle(first, performatives.ACCEPTED)
        else:
            self.settle(first, performatives.rejected(Condition.INTERNAL, str(failure)))


class RequestLink(IncomingLink):
    """Requests to a control node; `answer` turns one into an encoded reply."""

    def __init__(
        self,
        channel: Channel,
        attach: Attach,
        answer: Callable[[Request], bytes],
        reply_link: Callable[[str | None], ReplyLink | None],
    ) -> None:
        super().__init__(channel, attach, None)
        self._answer = answer
        self._reply_link = reply_link

    def _receive(self, first: Transfer, payload: bytes) -> None:
        try:
            request = messages.parse_request(payload)
        except DecodeError as error:
            self.settle(first, performatives.rejected(Condition.DECODE, str(error)))
            return
        replies = self._reply_link(request.reply_to)
        if replies is None:
            self.settle(first, performatives.rejected(Condition.NOT_FOUND, "no link to reply on"))
            return
        self.settle(first, performatives.ACCEPTED)
        replies.reply(self._answer(request))


# ------------------------------------------------------------------------------------------------ outgoing


class OutgoingLink(Link, ABC):
    """A link the client receives from."""

    def __init__(self, channel: Channel, attach: Attach, resource: str | None) -> None:
        super().__init__(channel, attach, resource)
        self.credit = 0
        self._delivery_count = 0
        self._drain = False

    def on_flow(self, flow: Flow) -> None:
        """Take over the client's credit and send what it allows."""
        if flow.link_credit is not None:
            limit = ((flow.delivery_count or 0) + flow.link_credit) & _U32
            credit = (limit - self._delivery_count) & _U32
            # A limit behind what was sent already (credit withdrawn) wraps around to a huge number.
            self.credit = credit if credit <= flow.link_credit else 0
        self._drain = flow.drain
        self.pump()
        if flow.echo and self.is_open:
            self.channel.send_flow((self.handle, self._delivery_count, self.credit))

    def on_writable(self) -> None:
        """Go on sending."""
        self.pump()

    @abstractmethod
    def pump(self) -> None:
        """Send what there is as far as credit, window and socket allow."""

    def _deliver(self, payload: bytes) -> bool:
        """Send one settled delivery; False when the session window has no room for all of its frames."""
        room = self.channel.frame_room
        frames = max(1, -(-len(payload) // room))
        if frames > self.channel.window:
            return False
        number, delivery_id = self.channel.number, self.channel.next_delivery(frames)
        for start in range(0, frames * room, room):
            part = payload[start : start + room] if frames > 1 else payload
            more = start + room < len(payload)
            self.channel.send(performatives.transfer(number, self.handle, delivery_id, part, more=more))
        self.credit -= 1
        self._delivery_count = (self._delivery_count + 1) & _U32
        return True

    def _finish_drain(self) -> None:
        """Use up what credit is left, as the client asked for, and say so."""
        self._delivery_count = (self._delivery_count + self.credit) & _U32
        self.credit, self._drain = 0, False
        self.channel.send_flow((self.handle, self._delivery_count, 0), drain=True)


class ReplyLink(OutgoingLink):
    """Replies of a control node; they wait while the client gives no credit."""

    def __init__(self, channel: Channel, attach: Attach, node: type[Node]) -> None:
        super().__init__(channel, attach, None)
        self.node = node
        self.address = attach.target.address
        self._waiting: deque[bytes] = deque()

    def reply(self, payload: bytes) -> None:
        """Send a reply, now or when there is credit."""
        if len(self._waiting) >= _MAX_PENDING_REPLIES:
            error = LinkError(Condition.RESOURCE_LIMIT, f"more than {_MAX_PENDING_REPLIES} replies were not taken")
            self.channel.end_link(self, error)
            return
        self._waiting.append(payload)
        self.pump()

    def pump(self) -> None:
        """Send waiting replies."""
        while self._waiting and self.credit and self._deliver(self._waiting[0]):
            self._waiting.popleft()
        if self._drain and not self._waiting:
            self._finish_drain()


class ReadLink(OutgoingLink):
    """Events of a partition, from a position on, as they come."""

    def __init__(
        self,
        channel: Channel,
        attach: Attach,
        resource: str,
        partition: Partition,
        *,
        group: str,
        epoch: int | None,
    ) -> None:
        super().__init__(channel, attach, resource)
        self.epoch = epoch
        self._partition = partition
        self._group = group
        self._wants_metric = RUNTIME_METRIC in attach.desired_capabilities
        self._cursor: Cursor | None = None
        self._unsent: deque[StoredEvent] = deque()
        self._is_scheduled = False

    def start(self, sequence: int) -> None:
        """Begin at a sequence number."""
        self._cursor = Cursor(self._partition.log, sequence)
        self._partition.log.subscribe(self._schedule)

    def displace(self, error: LinkError) -> None:
        """Another reader took the partition."""
        self.channel.end_link(self, error)

    def _schedule(self) -> None:
        # A batch wakes its readers once per append; they all send in one later turn, after the producer's answer.
        if not self._is_scheduled:
            self._is_scheduled = True
            self.channel.call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        if self.is_open:
            self.pump()

    def pump(self) -> None:
        """Send up to one turn's worth of events; the rest follows in the next turn."""
        cursor = self._cursor
        if cursor is None:
            return
        sent = 0
        metric = self._metric() if self._wants_metric else b""
        while self.credit and self.channel.can_send:
            if sent >= _TURN_EVENTS:
                self._schedule()
                return
            if not self._unsent and not self._fill(cursor):
                break
            if not self._deliver(_with_metric(self._unsent[0], metric)):
                return
            self._unsent.popleft()
            sent += 1
        if self._drain and self.is_open and self.channel.can_send:
            self._finish_drain()

    def _fill(self, cursor: Cursor) -> bool:
        """Read ahead; False at the end of the log."""
        try:
            self._unsent.extend(cursor.read(min(self.credit, _TURN_EVENTS)))
        except (LogCorrupt, OSError) as error:
            _log.exception("a reader was stopped", extra={"partition": self._partition.id})
            self.channel.end_link(self, LinkError(Condition.INTERNAL, str(error)))
        return bool(self._unsent)

    def _metric(self) -> bytes:
        log = self._partition.log
        return messages.delivery_annotations(
            {
                codec.symbol("last_enqueued_sequence_number"): codec.long(log.next_sequence - 1),
                codec.symbol("last_enqueued_offset"): codec.string(str(log.last_offset)),
                codec.symbol("last_enqueued_time_utc"): codec.timestamp(log.last_ms),
                codec.symbol("runtime_info_retrieval_time_utc"): codec.timestamp(self._partition.now_ms()),
            }
        )

    def close(self) -> None:
        """Stop reading and leave the partition to others."""
        super().close()
        self._partition.release(self._group, self)
        self._unsent.clear()
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None
            self._partition.log.unsubscribe(self._schedule)


def _with_metric(event: StoredEvent, metric: bytes) -> bytes:
    if not metric:
        return event.payload
    # Sections have an order: header, delivery annotations, everything else.
    return event.payload[: event.header_length] + metric + event.payload[event.header_length :]
