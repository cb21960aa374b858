"""What exists whatever its size: apps, hubs, containers, and what each app may do with them.

The names are those that the apps' settings hold, so they are checked against the settings, see `infra.app_settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.settings import AppSettings, DriftSettings, IngestSettings, RetrainSettings, ScoreSettings

APPS: Final = ("score", "ingest", "drift", "retrain")

SETTINGS: Final[dict[str, type[AppSettings]]] = {
    "score": ScoreSettings,
    "ingest": IngestSettings,
    "drift": DriftSettings,
    "retrain": RetrainSettings,
}

HUBS: Final[dict[str, tuple[str, ...]]] = {
    "transactions": ("ingest",),
    "labels": ("ingest",),
    "decisions": ("subscriber",),
}
"""Hub -> consumer groups. A group is one reader; `subscriber` is for the system that acts on decisions."""

HUB_SENDERS: Final[dict[str, tuple[str, ...]]] = {
    "transactions": ("drift",),
    "labels": (),
    "decisions": ("ingest",),
}
"""Who sends: drift its probes, ingest the decisions that leave the outbox."""

HUB_RECEIVERS: Final[dict[str, tuple[str, ...]]] = {"transactions": ("ingest",), "labels": ("ingest",), "decisions": ()}


@dataclass(frozen=True, slots=True)
class Container:
    """A container of the data account.

    Attributes:
        writers: Apps that write; every other app whose settings name the container reads.
        days: Blobs older than this are deleted; None keeps them.
        immutable: Whether nobody, owner included, may change or delete a blob for the configured time.
    """

    writers: tuple[str, ...]
    days: int | None = None
    immutable: bool = False


CONTAINERS: Final[dict[str, Container]] = {
    "models": Container(writers=("retrain",)),
    "probes": Container(writers=("ingest", "drift"), days=7),
    "dead-letters": Container(writers=("ingest",), days=90),
    "reports": Container(writers=("drift", "retrain"), days=730),
    "seals": Container(writers=("drift",), immutable=True),
}
"""Containers of the data account. The host's own state and each package lie in an account of the app."""

SECRETS: Final[dict[str, str]] = {"SURROGATE_KEYS": "surrogate-keys"}
"""Setting -> name in the Key Vault. Drawn there and never seen by Pulumi: `infra.delivery.vault_key`."""

OPTIONAL_SECRETS: Final[dict[str, str]] = {
    "NOTIFY_SMTP_PASSWORD": "notify-smtp-password",
    "NOTIFY_SLACK_URL": "notify-slack-url",
    "NOTIFY_WEBHOOK_URL": "notify-webhook-url",
    "NOTIFY_WEBHOOK_SECRET": "notify-webhook-secret",
}
"""Setting -> name in the Key Vault, of what operators put there; the app takes a missing one for empty."""
