"""Make a blob container unless it is there; runs inside the MLflow image, which has the storage SDK.

Usage: make_container.py NAME, with AZURE_STORAGE_CONNECTION_STRING in the environment.
"""

from __future__ import annotations

import os
import sys

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient


def make_container(name: str, connection_string: str) -> bool:
    """Make the container and say whether it was missing."""
    with BlobServiceClient.from_connection_string(connection_string) as service:
        try:
            service.create_container(name)
        except ResourceExistsError:
            return False
    return True


if __name__ == "__main__":
    made = make_container(sys.argv[1], os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    sys.stdout.write(f"container {sys.argv[1]} {'made' if made else 'was there'}\n")
