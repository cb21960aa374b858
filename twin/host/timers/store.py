"""A timer's status and lock in blob storage, at the places where the cloud's host keeps them.

Container `azure-webjobs-hosts`: `timers/<host id>/Host.Functions.<name>/status` (JSON) and
`locks/<host id>/Host.Functions.<name>.Listener` (empty, leased by the instance that fires).
Source: Azure/azure-webjobs-sdk-extensions wiki, TimerTrigger; its StorageScheduleMonitor.
"""

from __future__ import annotations

import contextlib
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

from twin.host.timers.payload import ScheduleStatus, status_document

if TYPE_CHECKING:
    from azure.storage.blob.aio import BlobLeaseClient, BlobServiceClient

log = logging.getLogger(__name__)

CONTAINER = "azure-webjobs-hosts"


def _moment(text: object) -> datetime | None:
    """An ISO time as aware UTC; None for .NET's smallest date, which stands for "never"."""
    moment = datetime.fromisoformat(str(text))
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return None if moment.year == 1 else moment


class TimerStore:
    """The blobs of one timer function."""

    def __init__(self, service: BlobServiceClient, host_id: str, function: str) -> None:
        self._container = service.get_container_client(CONTAINER)
        self._status = self._container.get_blob_client(f"timers/{host_id}/Host.Functions.{function}/status")
        self._lock = self._container.get_blob_client(f"locks/{host_id}/Host.Functions.{function}.Listener")

    async def prepare(self) -> None:
        """Create what must exist; may be repeated."""
        with contextlib.suppress(ResourceExistsError):
            await self._container.create_container()
        # A leased blob answers 412 to a write without its lease; either way it is there.
        with contextlib.suppress(ResourceExistsError, HttpResponseError):
            await self._lock.upload_blob(b"", overwrite=False)

    async def try_lock(self, seconds: float) -> BlobLeaseClient | None:
        """The lock, held for `seconds` (15 to 60) unless renewed; None while another instance holds it."""
        try:
            return await self._lock.acquire_lease(lease_duration=int(seconds))
        except ResourceExistsError:
            return None

    async def read(self) -> ScheduleStatus | None:
        """The status, or None if there is none or nobody can read it."""
        try:
            stream = await self._status.download_blob()
            document = json.loads(await stream.readall())
            following, updated = _moment(document["Next"]), _moment(document["LastUpdated"])
            if following is None or updated is None:
                return None
            return ScheduleStatus(_moment(document["Last"]), following, updated)
        except ResourceNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            log.warning("%s is not a timer status and is ignored", self._status.blob_name)
            return None

    async def write(self, status: ScheduleStatus) -> None:
        """Replace the status."""
        await self._status.upload_blob(json.dumps(status_document(status)).encode(), overwrite=True)
