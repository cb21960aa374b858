"""The twin without keys: managed identity, tokens and TLS in place of connection strings."""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from twin.identity import plan as identity
from twin.services.app_settings import (
    connection_names,
    database_names,
    plain_settings,
    secret_settings,
    surrogate_keys,
)
from twin.services.azurite import azurite_service
from twin.services.broker import broker_service
from twin.services.postgres import admin_dsn, postgres_service
from twin.services.service import Problem, Service, TlsFiles, base_environment, http_problem
from twin.services.settings import APPS, DATABASE, DATABASE_USER, TwinSettings, group_of

OPERATOR = "operator"
"""The identity of the person at the command: what `tollgate check` logs in as."""


@dataclass(frozen=True, slots=True)
class Keyless:
    """A keyless twin: its services besides the apps, and what apps are given in place of keys."""

    settings: TwinSettings
    plan: identity.Plan

    def backing(self) -> list[list[Service]]:
        """Services in the order in which they start: the endpoint alters roles in Postgres, so it is second."""
        made = self.plan.certificates
        tls = TlsFiles(made.certificate, made.key)
        trust = ssl.create_default_context(cafile=str(made.bundle))
        return [
            [
                postgres_service(self.settings, _logins()),
                azurite_service(self.settings, tls, trust=trust, bundle=made.bundle),
                broker_service(self.settings, tls, self.plan.broker_tokens),
            ],
            [self._endpoint()],
        ]

    def app_settings(self, app: str) -> dict[str, str]:
        """All variables of an app: its settings, without a key, and what the platform sets besides."""
        storage, hubs = connection_names(app)
        return {
            **plain_settings(app),
            **secret_settings(app, surrogate_keys(self.settings)),
            **self.plan.settings(app, storage=storage, hubs=hubs, postgres=database_names(app)),
            **self.environment(),
        }

    def environment(self) -> dict[str, str]:
        """What the platform sets for every process: where tokens come from, and whom to trust."""
        return self.plan.environment

    def database_settings(self) -> dict[str, str]:
        """The setting DATABASE, for the person at the command."""
        return {**self.plan.settings(OPERATOR, postgres=("DATABASE",)), **self.plan.environment}

    def _endpoint(self) -> Service:
        ports = {"identity": self.settings.identity, "postgres_tls": self.settings.postgres_tls}
        return Service(
            name="identity",
            ports=ports,
            command=self.plan.command,
            environment=base_environment(),
            probe=lambda: http_problem(self.plan.health_url, accept=_healthy),
            log=self.settings.root / "logs" / "identity.log",
            cwd=self.settings.root,
            urls={"identity": self.plan.environment["IDENTITY_ENDPOINT"]},
            identity_of=self.plan.config_text,
        )


def prepare(settings: TwinSettings) -> Keyless:
    """Lay out a keyless twin and make the keys and certificates that are missing; nothing is started."""
    roots = os.environ.get("SSL_CERT_FILE")
    plan = identity.prepare(
        settings.root / "identity",
        [*APPS, OPERATOR],
        ports=identity.Ports(
            endpoint=settings.identity,
            blob=settings.blob,
            queue=settings.queue,
            amqps=settings.amqps,
            postgres_tls=settings.postgres_tls,
            postgres=settings.postgres,
        ),
        database=identity.Database(admin_dsn(settings), DATABASE),
        now=datetime.now(UTC),
        roots=Path(roots) if roots else None,
    )
    return Keyless(settings, plan)


def _logins() -> dict[str, str]:
    """The identities' logins: those of apps have their app's rights, the operator's has the owner's."""
    return {identity.role(app): group_of(app) for app in APPS} | {identity.role(OPERATOR): DATABASE_USER}


def _healthy(status: int, body: str) -> Problem:
    if status == 200:
        return ""
    try:
        return str(json.loads(body)["problem"])
    except (ValueError, KeyError, TypeError):
        return f"health answered {status}"
