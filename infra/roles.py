"""Who may do what where: the one table of role assignments.

Source of the role ids: Azure, "Azure built-in roles"; each was found again in public templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infra.app_settings import containers_read
from infra.config import StackConfig
from infra.topology import APPS, CONTAINERS, HUB_RECEIVERS, HUB_SENDERS, OPTIONAL_SECRETS, SECRETS, SETTINGS


class Role(StrEnum):
    """The roles that are assigned, with their ids."""

    BLOB_OWNER = "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"
    BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
    BLOB_READER = "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"
    HUB_RECEIVER = "a638d3c7-ab3a-418d-83e6-5f17a39d4fde"
    HUB_SENDER = "2b629674-e913-4c01-ae53-ef4638d8f975"
    SECRETS_USER = "4633458b-17de-408a-b874-0445c86b69e6"
    SECRETS_OFFICER = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
    METRICS_PUBLISHER = "3913510d-42f4-4e42-8a64-420c390055eb"


FORBIDDEN: Final[dict[str, str]] = {
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635": "Owner",
    "b24988ac-6180-42a0-ab88-20f7382dd24c": "Contributor",
    "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9": "User Access Administrator",
    "f58310d9-a9f6-439a-9e8d-f62e7b41a168": "Role Based Access Control Administrator",
    "f526a384-b230-433a-b45c-95f59c4a2dec": "Azure Event Hubs Data Owner",
    "17d1049b-9a84-46fb-8f53-869881c3d3ab": "Storage Account Contributor",
    "00482a5a-887f-4fb3-b363-3b7fe8e74483": "Key Vault Administrator",
}
"""Roles that hand out rights, keys or everything; no stack assigns one."""

OPERATORS: Final = "operators"
MLFLOW: Final = "mlflow"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One row of the table.

    Attributes:
        principal: An app, `mlflow`, or `operators` (the Entra group of the configuration).
        role: What it may do.
        scope: Where: `host:<app>`, `container:<name>`, `hub:<name>`, `vault` or `insights`.
    """

    principal: str
    role: Role
    scope: str


def grants(config: StackConfig) -> tuple[Grant, ...]:
    """Return the role assignments of a stack, sorted.

    Receiving is granted on the hub: at the scope of a consumer group the trigger fails, because it also asks the hub
    for its partitions. The host's own storage is one account per app, so that an app that was taken over cannot
    rewrite the package of another one.
    """
    rows = [Grant(app, Role.BLOB_OWNER, f"host:{app}") for app in APPS]
    rows += [Grant(app, Role.METRICS_PUBLISHER, "insights") for app in APPS]
    for app in APPS:
        written = {name for name, container in CONTAINERS.items() if app in container.writers}
        rows += [Grant(app, Role.BLOB_CONTRIBUTOR, f"container:{name}") for name in written]
        rows += [Grant(app, Role.BLOB_READER, f"container:{name}") for name in {*containers_read(app)} - written]
    for hub, senders in HUB_SENDERS.items():
        rows += [Grant(app, Role.HUB_SENDER, f"hub:{hub}") for app in senders if _has(app, "EVENT_HUBS")]
    for hub, receivers in HUB_RECEIVERS.items():
        rows += [Grant(app, Role.HUB_RECEIVER, f"hub:{hub}") for app in receivers if _has(app, "EVENT_HUBS")]
    secrets = (*SECRETS, *OPTIONAL_SECRETS)
    rows += [Grant(app, Role.SECRETS_USER, "vault") for app in APPS if any(_has(app, name) for name in secrets)]
    rows.append(Grant(OPERATORS, Role.SECRETS_OFFICER, "vault"))
    rows.append(Grant(OPERATORS, Role.BLOB_CONTRIBUTOR, "container:models"))
    if config.mlflow:
        rows.append(Grant(MLFLOW, Role.BLOB_CONTRIBUTOR, "container:mlflow"))
    return tuple(sorted(rows))


def _has(app: str, setting: str) -> bool:
    return setting in SETTINGS[app].names()
