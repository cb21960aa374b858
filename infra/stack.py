"""A whole stack, put together from its components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_azure_native import resources

from infra.app_settings import ROOT, TELEMETRY, connections, needed_secrets, plain_settings
from infra.components.access import Access, Locks
from infra.components.event_hubs import EventHubs
from infra.components.function_app import AppIdentity, FunctionApp, Size
from infra.components.mlflow import Mlflow
from infra.components.monitoring import Monitoring
from infra.components.network import PrivateNetwork
from infra.components.observability import Budget, Observability
from infra.components.postgres import DATABASE, Postgres
from infra.components.storage import PACKAGES, Account, DataStorage
from infra.components.vault import Vault
from infra.config import INGEST_MAX_INSTANCES, PROJECT, StackConfig
from infra.context import Context
from infra.delivery.code_package import CodePackage
from infra.delivery.database import DatabaseSchema
from infra.delivery.package import read_package
from infra.delivery.vault_key import VaultKey
from infra.naming import Naming
from infra.roles import MLFLOW, OPERATORS, grants
from infra.topology import APPS, OPTIONAL_SECRETS

SMALLEST_MAXIMUM: Final = 40
"""The least upper bound of instances that Flex takes."""


@dataclass(frozen=True)
class Stack:
    """What a stack hands out: addresses and names, never a secret."""

    outputs: dict[str, pulumi.Output[str]]


def build(config: StackConfig) -> Stack:
    """Declare every resource of a stack."""
    names = Naming(config.environment, config.subscription_id)
    tags = {"product": PROJECT, "environment": config.environment, "profile": config.profile}
    group = resources.ResourceGroup(
        "group",
        resource_group_name=names.group,
        location=config.location,
        tags=tags,
        opts=pulumi.ResourceOptions(protect=config.locks),
    )
    context = Context(config, names, group, tags)
    network = PrivateNetwork("network", context) if config.private_network else None
    observability = Observability("observability", context)
    data = DataStorage("data-storage", context, observability, network)
    events = EventHubs("event-hubs", context, observability, network)
    postgres = Postgres("database-server", context, observability, network)
    vault = Vault("key-vault", context, observability, network)
    hosts = {
        app: Account(
            app,
            context,
            observability,
            network,
            # What the plan does over zones, its storage has to do as well.
            redundancy="Standard_ZRS" if config.profile == "prod" else "Standard_LRS",
            containers=(PACKAGES,),
            # Leases of partitions and timers are renewed by writes, several times a minute: not worth their price.
            logged=("StorageDelete",),
            keeps_deleted_days=7,
        )
        for app in APPS
    }
    identities = {app: AppIdentity(app, context) for app in (*APPS, *((MLFLOW,) if config.mlflow else ()))}
    access = Access(
        "access",
        context,
        grants=grants(config),
        principals={
            **{name: identity.identity.principal_id for name, identity in identities.items()},
            OPERATORS: config.operators_id,
        },
        scopes={
            "insights": observability.insights.id,
            "vault": vault.vault.id,
            **{f"host:{app}": account.account.id for app, account in hosts.items()},
            **{f"container:{name}": container.id for name, container in data.containers.items()},
            **{f"hub:{name}": hub.id for name, hub in events.hubs.items()},
        },
    )
    doors = [*network.doors] if network is not None else []
    keys = [
        VaultKey(
            f"key-{name}",
            secret_uri=vault.secret_uri(name),
            opts=pulumi.ResourceOptions(parent=vault, depends_on=[*access.of(OPERATORS), *doors], protect=config.locks),
        )
        for name in needed_secrets().values()
    ]
    mlflow = None
    if network is not None and config.mlflow:
        mlflow = Mlflow(
            "mlflow",
            context,
            observability,
            network,
            identity=identities[MLFLOW],
            data=data,
            postgres=postgres,
            depends_on=[*access.of(MLFLOW), *doors, *postgres.ready],
        )
    apps = {}
    for app in APPS:
        apps[app] = FunctionApp(
            app,
            context,
            observability,
            network,
            identity=identities[app],
            host_storage=hosts[app],
            size=_size(app, config),
            settings=_settings(
                app,
                config=config,
                identity=identities[app],
                host=hosts[app],
                data=data,
                events=events,
                postgres=postgres,
                vault=vault,
                observability=observability,
                mlflow=mlflow,
            ),
            public=not config.private_network or (app == "score" and config.public_scoring),
            entra_client_id=config.entra_client_id if app == "score" else "",
            depends_on=[*access.of(app), *keys, *doors, postgres.database],
        )
    outputs = _outputs(apps=apps, names=names, postgres=postgres, events=events, data=data, vault=vault)
    links = Monitoring("monitoring", context, observability).links
    outputs |= {f"{board}Dashboard": link for board, link in links.items()}
    if mlflow is not None:
        outputs["mlflowEndpoint"] = mlflow.url
    if config.deploy_code:
        schema = DatabaseSchema(
            "schema",
            host=postgres.server.fully_qualified_domain_name,
            database=DATABASE,
            user=config.operators_name,
            logins={name: identity.login for name, identity in identities.items()},
            opts=pulumi.ResourceOptions(parent=postgres, depends_on=[*postgres.ready, *doors]),
        )
        for app, function_app in apps.items():
            CodePackage(
                f"package-{app}",
                package=read_package(app, ROOT / config.packages_folder),
                deployment_url=function_app.deployment_url,
                url=function_app.url,
                app_id=function_app.app.id,
                opts=pulumi.ResourceOptions(
                    parent=function_app,
                    depends_on=[schema, *access.of(app), *(network.doors if network is not None else [])],
                ),
            )
    if config.locks:
        Locks(
            "locks",
            context,
            {
                "data": data.account.id,
                "postgres": postgres.server.id,
                "vault": vault.vault.id,
                "events": events.namespace.id,
            },
        )
    Budget("budget", context, observability)
    return Stack(outputs)


def _size(app: str, config: StackConfig) -> Size:
    memory = {"score": config.score_memory_mb, "ingest": config.ingest_memory_mb, "retrain": config.retrain_memory_mb}
    return Size(
        memory_mb=memory.get(app, 2048),
        max_instances={"score": config.score_max_instances, "ingest": INGEST_MAX_INSTANCES}.get(app, SMALLEST_MAXIMUM),
        always_ready=config.score_always_ready if app == "score" else 0,
        http_concurrency=config.score_concurrency if app == "score" else 16,
    )


def _settings(
    app: str,
    *,
    config: StackConfig,
    identity: AppIdentity,
    host: Account,
    data: DataStorage,
    events: EventHubs,
    postgres: Postgres,
    vault: Vault,
    observability: Observability,
    mlflow: Mlflow | None,
) -> dict[str, pulumi.Input[str]]:
    """Every app setting of an app: the plain ones, its connections in their keyless form, and telemetry."""
    client_id = identity.identity.client_id
    # A reference into the vault is text with an address in it, which is known only once the vault exists.
    values: dict[str, pulumi.Input[str]] = {}
    for name, value in plain_settings(app, config, lambda secret: f"<{secret}>").items():
        named = [*needed_secrets().values(), *OPTIONAL_SECRETS.values()]
        secrets = [secret for secret in named if f"<{secret}>" in value]
        values[name] = value
        for secret in secrets:
            before, _, after = value.partition(f"<{secret}>")
            values[name] = pulumi.Output.concat(before, vault.secret_uri(secret), after)
    if mlflow is not None and "MLFLOW_TRACKING_URI" in values:
        values["MLFLOW_TRACKING_URI"] = mlflow.url
    where: dict[str, dict[str, pulumi.Input[str]]] = {
        "AzureWebJobsStorage": {"accountName": host.account.name},
        "DATA_STORAGE": {"accountName": data.account.name},
        "EVENT_HUBS": {"fullyQualifiedNamespace": events.host},
        "DATABASE": {
            "host": postgres.server.fully_qualified_domain_name,
            "port": "5432",
            "database": DATABASE,
            "user": identity.login,
            "sslMode": "verify-full",
        },
    }
    for connection in connections(app):
        parts = where[connection] | {"credential": "managedidentity", "clientId": client_id}
        values |= {f"{connection}__{part}": value for part, value in parts.items()}
    authentication, connection_string = TELEMETRY
    values[authentication] = pulumi.Output.concat("ClientId=", client_id, ";Authorization=AAD")
    values[connection_string] = observability.insights.connection_string
    return values


def _outputs(
    *,
    apps: dict[str, FunctionApp],
    names: Naming,
    postgres: Postgres,
    events: EventHubs,
    data: DataStorage,
    vault: Vault,
) -> dict[str, pulumi.Output[str]]:
    outputs = {
        "scoreEndpoint": apps["score"].url.apply(lambda url: f"{url}/api/score"),
        "resourceGroup": pulumi.Output.from_input(names.group),
        "database": postgres.server.fully_qualified_domain_name,
        "eventHubs": events.host,
        "dataAccount": data.account.name,
        "keyVault": vault.vault.name,
    }
    return outputs | {f"{name}App": app.app.name for name, app in apps.items()}
