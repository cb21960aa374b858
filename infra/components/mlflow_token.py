"""Run beside MLflow: keeps libpq's password file filled with an Entra token that is valid.

Standard library only; the container's platform serves tokens at IDENTITY_ENDPOINT. Postgres checks a token when a
connection starts, so a token that ends later breaks nothing that is open.
"""

from __future__ import annotations

import json
import os
import time
import urllib.parse
import urllib.request
from pathlib import Path

RESOURCE = "https://ossrdbms-aad.database.windows.net"
EARLY_S = 600


def renew(password_file: Path, now: float) -> float:
    """Write a fresh token and return after how many seconds to come back."""
    query = urllib.parse.urlencode(
        {"api-version": "2019-08-01", "resource": RESOURCE, "client_id": os.environ["AZURE_CLIENT_ID"]}
    )
    request = urllib.request.Request(  # noqa: S310 - the platform's own address
        f"{os.environ['IDENTITY_ENDPOINT']}?{query}", headers={"X-IDENTITY-HEADER": os.environ["IDENTITY_HEADER"]}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        token = json.load(answer)
    # libpq ignores a password file that others may read, and must never see half of one.
    fresh = password_file.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text(f"*:*:*:*:{token['access_token']}\n", encoding="ascii")
    fresh.replace(password_file)
    return max(60.0, float(token["expires_on"]) - now - EARLY_S)


if __name__ == "__main__":
    while True:
        time.sleep(renew(Path(os.environ["PGPASSFILE"]), time.time()))
