"""The resource that stands for "the vault holds a key of this name".

The key is drawn here, put into the vault and forgotten: neither Pulumi's state nor its log ever holds it. A key that is
already there is left alone, so running again, or restoring a vault, changes nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from typing import Any, Final

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider

from infra.delivery import entra
from infra.delivery.errors import DeliveryError
from infra.delivery.requests import Clock, Deadline, send

API: Final = "7.4"
KEY_BYTES: Final = 32
# Vaults and their role assignments need some minutes until every part of Azure knows them.
SPREADING: Final = frozenset({401, 403})


def ensure_key(secret_uri: str, token: Callable[[str], str], clock: Clock) -> bool:
    """Draw a key unless the vault has one; return whether one was drawn.

    The value has the form of the apps' setting: `k1:<base64 of 32 random bytes>`.

    Raises:
        DeliveryError: The vault cannot be asked or refuses.
    """
    deadline = Deadline.after(600.0, f"key {secret_uri.rsplit('/', 1)[-1]}", clock)

    def headers() -> dict[str, str]:
        return {"Authorization": f"Bearer {token(entra.VAULT)}", "Content-Type": "application/json"}

    # Versions are listed, not the secret read: whoever deploys need not see it.
    found = send("GET", f"{secret_uri}/versions?api-version={API}", deadline, headers=headers, also_again=SPREADING)
    if found.status == 200:
        listed = found.json()
        if isinstance(listed, dict) and listed.get("value"):
            return False
    elif found.status != 404:
        raise DeliveryError(f"{deadline.what}: HTTP {found.status} {found.text()}")
    value = f"k1:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode('ascii')}"
    body = json.dumps({"value": value, "contentType": "keys of the surrogates, current one first"}).encode()
    put = send("PUT", f"{secret_uri}?api-version={API}", deadline, headers=headers, body=body, also_again=SPREADING)
    if put.status != 200:
        raise DeliveryError(f"{deadline.what}: HTTP {put.status} {put.text()}")
    return True


class VaultKeyProvider(ResourceProvider):
    """Draws on creation, and never again. Deleting the resource leaves the key: without it nobody is found again."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Draw unless it is there."""
        drawn = ensure_key(props["secret_uri"], entra.token, Clock())
        pulumi.log.info("the key was drawn" if drawn else "the key was there")
        return CreateResult(id_=props["secret_uri"], outs={"secret_uri": props["secret_uri"]})

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Another vault needs a key of its own."""
        changed = _olds.get("secret_uri") != _news.get("secret_uri")
        return DiffResult(changes=changed, replaces=["secret_uri"] if changed else [], delete_before_replace=False)


class VaultKey(Resource):
    """A key in the vault."""

    def __init__(self, name: str, *, secret_uri: pulumi.Input[str], opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(VaultKeyProvider(), name, {"secret_uri": secret_uri}, opts)
