"""What an app does with storage, run by a test as a process of its own: its environment is all it knows."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid

from azure.identity import ManagedIdentityCredential
from azure.identity import aio as identity_aio
from azure.storage.blob.aio import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from shared.adapters import connections


def with_the_shared_library() -> str:
    with connections.blob_service(connections.parse_storage("Store", os.environ)) as service:
        container = service.create_container(f"s{uuid.uuid4().hex}")
        container.upload_blob("blob", b"sync blob")
        text = container.download_blob("blob").readall()
        container.delete_container()
    return text.decode()


async def with_aio(address: str, client_id: str) -> str:
    async with (
        identity_aio.ManagedIdentityCredential(client_id=client_id) as credential,
        BlobServiceClient(address, credential=credential) as service,
    ):
        container = await service.create_container(f"a{uuid.uuid4().hex}")
        await container.upload_blob("blob", b"aio blob")
        stream = await container.download_blob("blob")
        text = await stream.readall()
        await container.delete_container()
    return text.decode()


def with_a_queue(address: str, client_id: str) -> str:
    with (
        ManagedIdentityCredential(client_id=client_id) as credential,
        QueueServiceClient(address, credential=credential) as service,
    ):
        queue = service.create_queue(f"q{uuid.uuid4().hex}")
        queue.send_message("message")
        message = queue.receive_message()
        assert message is not None
        text = str(message.content)
        queue.delete_queue()
        queue.close()
    return text


if __name__ == "__main__":
    blobs, queues, client = sys.argv[1:]
    json.dump(
        {
            "sync": with_the_shared_library(),
            "aio": asyncio.run(with_aio(blobs, client)),
            "queue": with_a_queue(queues, client),
        },
        sys.stdout,
    )
