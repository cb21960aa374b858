"""The namespace: hubs, their partitions and consumer groups, and who reads what."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from twin.broker.errors import BrokerError, Condition, LinkError
from twin.broker.messages import Event
from twin.broker.partition_key import partition_for
from twin.broker.partition_log import LogLimits, OnDurable, PartitionLog

DEFAULT_GROUP: Final = "$Default"
MAX_READERS: Final = 5
"""Readers without an epoch per partition and consumer group, as the service documents."""
_REGISTER: Final = "hubs.json"


class NamespaceShrunk(BrokerError):
    """The configuration lacks a hub or partitions that hold data."""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """A hub as configured; `$Default` need not be among the groups."""

    name: str
    partitions: int
    consumer_groups: tuple[str, ...] = ()


class Reader(Protocol):
    """A link that reads a partition."""

    @property
    def epoch(self) -> int | None:
        """Its epoch (owner level), None without."""

    def displace(self, error: LinkError) -> None:
        """End it with an error, because another reader took its place."""


class Partition:
    """One partition: its log and the readers of each consumer group."""

    def __init__(self, number: int, log: PartitionLog, now_ms: Callable[[], int]) -> None:
        self.id = str(number)
        self.log = log
        self.now_ms = now_ms
        self._readers: dict[str, list[Reader]] = {}

    def claim(self, group: str, reader: Reader) -> None:
        """Let a reader in, by the rules of epochs.

        With an epoch it displaces every reader of a lower or the same epoch and all without one. Without an epoch it
        needs that nobody has one, and that fewer than `MAX_READERS` read.

        Raises:
            LinkError: `amqp:link:stolen` or `amqp:resource-limit-exceeded`.
        """
        readers = self._readers.setdefault(group, [])
        highest = max((other.epoch for other in readers if other.epoch is not None), default=None)
        if reader.epoch is None:
            if highest is not None:
                raise LinkError(Condition.STOLEN, f"A receiver with epoch {highest} reads this partition.")
            if len(readers) >= MAX_READERS:
                text = f"Exceeded the maximum number of {MAX_READERS} receivers per partition and consumer group."
                raise LinkError(Condition.RESOURCE_LIMIT, text)
        else:
            if highest is not None and highest > reader.epoch:
                raise LinkError(Condition.STOLEN, f"A receiver with a higher epoch {highest} reads this partition.")
            reason = LinkError(Condition.STOLEN, f"A new receiver with epoch {reader.epoch} took the partition.")
            for other in tuple(readers):
                other.displace(reason)
        self._readers.setdefault(group, []).append(reader)

    def release(self, group: str, reader: Reader) -> None:
        """Forget a reader; harmless when it is not there."""
        readers = self._readers.get(group, [])
        if reader in readers:
            readers.remove(reader)


class Hub:
    """One hub."""

    def __init__(self, settings: HubSettings, created_ms: int, partitions: Sequence[Partition]) -> None:
        self.name = settings.name
        self.created_ms = created_ms
        self.partitions = tuple(partitions)
        self._groups = {group.lower() for group in (DEFAULT_GROUP, *settings.consumer_groups)}
        self._turn = -1

    def group(self, name: str) -> str:
        """The comparable name of a consumer group.

        Raises:
            LinkError: `amqp:not-found`.
        """
        if name.lower() not in self._groups:
            text = f"The consumer group '{name[:260]}' of '{self.name}' could not be found."
            raise LinkError(Condition.NOT_FOUND, text)
        return name.lower()

    def partition(self, identifier: str) -> Partition:
        """A partition by its id.

        Raises:
            LinkError: `com.microsoft:argument-out-of-range`.
        """
        if identifier.isascii() and identifier.isdigit() and len(identifier) < 6:
            number = int(identifier)
            if number < len(self.partitions):
                return self.partitions[number]
        text = f"The specified partition is invalid: '{identifier[:40]}'. '{self.name}' has {len(self.partitions)}."
        raise LinkError(Condition.ARGUMENT_OUT_OF_RANGE, text)

    def publish(self, events: Sequence[Event], partition: Partition | None, on_durable: OnDurable) -> None:
        """Append a batch to one partition: the given one, that of the partition key, or the next in turn."""
        if partition is None:
            partition = self._choose(events[0].partition_key)
        partition.log.append(events, on_durable)

    def _choose(self, key: str | None) -> Partition:
        if key is not None:
            return self.partitions[partition_for(key, len(self.partitions))]
        self._turn = (self._turn + 1) % len(self.partitions)
        return self.partitions[self._turn]


class Namespace:
    """All hubs of a data directory."""

    def __init__(
        self,
        data_dir: Path,
        hubs: Iterable[HubSettings],
        limits: LogLimits,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Open every log.

        Raises:
            NamespaceShrunk: the data directory has a hub or partitions that the configuration lacks.
            LogCorrupt: stored events are damaged.
            OSError: the directory cannot be used.
        """
        settings = tuple(hubs)
        register = _Register(data_dir / _REGISTER)
        register.extend(settings, clock_ms())
        self._hubs = {
            hub.name.lower(): Hub(
                hub,
                register.created_ms(hub.name),
                [
                    Partition(number, PartitionLog(_directory(data_dir, hub.name, number), limits, clock_ms), clock_ms)
                    for number in range(hub.partitions)
                ],
            )
            for hub in settings
        }

    @property
    def partitions(self) -> Iterable[Partition]:
        """All partitions of all hubs."""
        return (partition for hub in self._hubs.values() for partition in hub.partitions)

    def hub(self, name: str) -> Hub:
        """A hub by name, without case.

        Raises:
            LinkError: `amqp:not-found`.
        """
        hub = self._hubs.get(name.lower())
        if hub is None:
            raise LinkError(Condition.NOT_FOUND, f"The messaging entity '{name[:260]}' could not be found.")
        return hub

    async def close(self) -> None:
        """Close every log."""
        for partition in self.partitions:
            await partition.log.close()


def _directory(data_dir: Path, hub: str, partition: int) -> Path:
    return data_dir / "hubs" / hub.lower() / str(partition)


class _Register:
    """The file that remembers which hubs and how many partitions hold data, and since when."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, int]] = {}
        if path.exists():
            self._entries = json.loads(path.read_text(encoding="utf-8"))

    def created_ms(self, name: str) -> int:
        return self._entries[name.lower()]["created_ms"]

    def extend(self, hubs: Sequence[HubSettings], now_ms: int) -> None:
        """Add what is new; raises NamespaceShrunk naming everything that is missing."""
        configured = {hub.name.lower(): hub.partitions for hub in hubs}
        problems = [
            f"hub '{name}' has {entry['partitions']} partitions with data; the configuration names "
            f"{configured.get(name, 'no such hub')}"
            for name, entry in self._entries.items()
            if configured.get(name, 0) < entry["partitions"]
        ]
        if problems:
            raise NamespaceShrunk("; ".join(problems))
        for name, partitions in configured.items():
            created_ms = self._entries.get(name, {}).get("created_ms", now_ms)
            self._entries[name] = {"partitions": partitions, "created_ms": created_ms}
        # Replaced in one step: a crash leaves the old register or the new one.
        replacement = self._path.with_suffix(".new")
        replacement.write_text(json.dumps(self._entries, indent=2) + "\n", encoding="utf-8")
        replacement.replace(self._path)
