"""Receipts of probes as small blobs, one each."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import ContainerClient, ContentSettings

from shared.adapters.blob_errors import translated
from shared.domain.errors import BrokenInvariant
from shared.domain.probe import Probe, ProbeReceipt

_JSON = ContentSettings(content_type="application/json")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BlobProbeReceipts:
    """`receipts/<probe_id>.json` in a container; written only if absent, so the first receipt of a probe stays."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def record(self, receipt: ProbeReceipt) -> bool:
        """Keep a receipt; returns whether it was the first of its probe."""
        body = json.dumps(_to_document(receipt)).encode()
        with translated("writing a probe receipt"):
            try:
                self._container.upload_blob(_name(receipt.probe.probe_id), body, content_settings=_JSON)
            except ResourceExistsError:
                return False
        return True

    def find(self, probe_id: str) -> ProbeReceipt | None:
        """The receipt of a probe, or None."""
        with translated("reading a probe receipt"):
            try:
                body = self._container.download_blob(_name(probe_id)).readall()
            except ResourceNotFoundError as error:
                if getattr(error, "error_code", None) == "BlobNotFound":
                    return None
                raise
        return _from_document(body)

    def expire(self, before_us: int) -> int:
        """Delete receipts last written before a time, microseconds since 1970 UTC; returns how many."""
        before = _EPOCH + timedelta(microseconds=before_us)
        dropped = 0
        with translated("expiring probe receipts"):
            for blob in self._container.list_blobs(name_starts_with="receipts/"):
                if blob.last_modified < before:
                    try:
                        self._container.delete_blob(blob.name)
                    except ResourceNotFoundError:
                        continue  # another instance was faster
                    dropped += 1
        return dropped


def _name(probe_id: str) -> str:
    return f"receipts/{probe_id}.json"


def _to_document(receipt: ProbeReceipt) -> dict[str, object]:
    return {
        "probe_id": receipt.probe.probe_id,
        "sent_at_us": receipt.probe.sent_at_us,
        "hub": receipt.hub,
        "partition": receipt.partition,
        "sequence_number": receipt.sequence_number,
        "enqueued_at_us": receipt.enqueued_at_us,
        "received_at_us": receipt.received_at_us,
    }


def _from_document(body: bytes) -> ProbeReceipt:
    try:
        document = json.loads(body)
        return ProbeReceipt(
            probe=Probe(document["probe_id"], document["sent_at_us"]),
            hub=document["hub"],
            partition=document["partition"],
            sequence_number=document["sequence_number"],
            enqueued_at_us=document["enqueued_at_us"],
            received_at_us=document["received_at_us"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenInvariant("a stored probe receipt cannot be read") from error
