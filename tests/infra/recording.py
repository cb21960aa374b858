"""Run the program under mocks that answer like Azure Resource Manager, and keep what it asked for."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import resource as pulumi_resource
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import source_pb2

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TENANT = "00000000-0000-0000-0000-000000000002"
OPERATORS = "00000000-0000-0000-0000-000000000003"
CLIENT = "00000000-0000-0000-0000-000000000004"
IMAGE = "registry.example/mlflow@sha256:" + "0" * 64
ENVIRONMENT_DOMAIN = "quietfield-0a1b2c3d.westeurope.azurecontainerapps.io"
ENVIRONMENT_ADDRESS = "10.64.7.243"
"""What Azure draws for an internal environment of Container Apps: a domain, and an address of its subnet."""

REQUIRED = {
    "location": "westeurope",
    "subscriptionId": SUBSCRIPTION,
    "tenantId": TENANT,
    "operatorsId": OPERATORS,
    "operatorsName": "tollgate-operators",
    "alertEmail": "ops@example.com",
    "budgetStart": "2026-12-01",
}

SECRET_MARK = "4dabf18193072939515e22adb298388d"
SECRET_VALUE = "1b47061264138c4ac30d75fd1eb44270"

PATHS: dict[str, str] = {
    "azure-native:storage:StorageAccount": "Microsoft.Storage/storageAccounts/{accountName}",
    "azure-native:storage:BlobServiceProperties": (
        "Microsoft.Storage/storageAccounts/{accountName}/blobServices/default"
    ),
    "azure-native:storage:BlobContainer": (
        "Microsoft.Storage/storageAccounts/{accountName}/blobServices/default/containers/{containerName}"
    ),
    "azure-native:storage:BlobContainerImmutabilityPolicy": (
        "Microsoft.Storage/storageAccounts/{accountName}/blobServices/default/containers/{containerName}"
        "/immutabilityPolicies/default"
    ),
    "azure-native:storage:ManagementPolicy": (
        "Microsoft.Storage/storageAccounts/{accountName}/managementPolicies/default"
    ),
    "azure-native:eventhub:Namespace": "Microsoft.EventHub/namespaces/{namespaceName}",
    "azure-native:eventhub:EventHub": "Microsoft.EventHub/namespaces/{namespaceName}/eventhubs/{eventHubName}",
    "azure-native:eventhub:ConsumerGroup": (
        "Microsoft.EventHub/namespaces/{namespaceName}/eventhubs/{eventHubName}/consumergroups/{consumerGroupName}"
    ),
    "azure-native:dbforpostgresql:Server": "Microsoft.DBforPostgreSQL/flexibleServers/{serverName}",
    "azure-native:dbforpostgresql:Database": (
        "Microsoft.DBforPostgreSQL/flexibleServers/{serverName}/databases/{databaseName}"
    ),
    "azure-native:dbforpostgresql:Configuration": (
        "Microsoft.DBforPostgreSQL/flexibleServers/{serverName}/configurations/{configurationName}"
    ),
    "azure-native:dbforpostgresql:FirewallRule": (
        "Microsoft.DBforPostgreSQL/flexibleServers/{serverName}/firewallRules/{firewallRuleName}"
    ),
    "azure-native:dbforpostgresql:AdministratorsMicrosoftEntra": (
        "Microsoft.DBforPostgreSQL/flexibleServers/{serverName}/administrators/{objectId}"
    ),
    "azure-native:keyvault:Vault": "Microsoft.KeyVault/vaults/{vaultName}",
    "azure-native:operationalinsights:Workspace": "Microsoft.OperationalInsights/workspaces/{workspaceName}",
    "azure-native:applicationinsights:Component": "Microsoft.Insights/components/{resourceName}",
    "azure-native:monitor:ActionGroup": "Microsoft.Insights/actionGroups/{actionGroupName}",
    "azure-native:dashboard:Dashboard": "Microsoft.Dashboard/dashboards/{dashboardName}",
    "azure-native:dashboard:DashboardDefinition": (
        "Microsoft.Dashboard/dashboards/{dashboardName}/dashboardDefinitions/{definitionName}"
    ),
    "azure-native:monitor:ScheduledQueryRule": "Microsoft.Insights/scheduledQueryRules/{ruleName}",
    "azure-native:managedidentity:UserAssignedIdentity": (
        "Microsoft.ManagedIdentity/userAssignedIdentities/{resourceName}"
    ),
    "azure-native:web:AppServicePlan": "Microsoft.Web/serverfarms/{name}",
    "azure-native:web:WebApp": "Microsoft.Web/sites/{name}",
    "azure-native:web:WebAppFtpAllowed": "Microsoft.Web/sites/{name}/basicPublishingCredentialsPolicies/ftp",
    "azure-native:web:WebAppScmAllowed": "Microsoft.Web/sites/{name}/basicPublishingCredentialsPolicies/scm",
    "azure-native:web:WebAppAuthSettingsV2": "Microsoft.Web/sites/{name}/config/authsettingsV2",
    "azure-native:network:VirtualNetwork": "Microsoft.Network/virtualNetworks/{virtualNetworkName}",
    "azure-native:network:Subnet": "Microsoft.Network/virtualNetworks/{virtualNetworkName}/subnets/{subnetName}",
    "azure-native:network:NetworkSecurityGroup": "Microsoft.Network/networkSecurityGroups/{networkSecurityGroupName}",
    "azure-native:network:PrivateEndpoint": "Microsoft.Network/privateEndpoints/{privateEndpointName}",
    "azure-native:network:PrivateDnsZoneGroup": (
        "Microsoft.Network/privateEndpoints/{privateEndpointName}/privateDnsZoneGroups/{privateDnsZoneGroupName}"
    ),
    "azure-native:privatedns:PrivateZone": "Microsoft.Network/privateDnsZones/{privateZoneName}",
    "azure-native:privatedns:PrivateRecordSet": (
        "Microsoft.Network/privateDnsZones/{privateZoneName}/{recordType}/{relativeRecordSetName}"
    ),
    "azure-native:privatedns:VirtualNetworkLink": (
        "Microsoft.Network/privateDnsZones/{privateZoneName}/virtualNetworkLinks/{virtualNetworkLinkName}"
    ),
    "azure-native:app:ManagedEnvironment": "Microsoft.App/managedEnvironments/{environmentName}",
    "azure-native:app:ContainerApp": "Microsoft.App/containerApps/{containerAppName}",
    "azure-native:monitor:DiagnosticSetting": "{resourceUri}/providers/Microsoft.Insights/diagnosticSettings/{name}",
    "azure-native:authorization:RoleAssignment": (
        "{scope}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}"
    ),
    "azure-native:authorization:ManagementLockByScope": "{scope}/providers/Microsoft.Authorization/locks/{lockName}",
    "azure-native:consumption:Budget": "{scope}/providers/Microsoft.Consumption/budgets/{budgetName}",
}
"""Resource type -> its ARM id below the resource group, or, where it starts with a scope, as a whole."""


@dataclass(frozen=True)
class Recorded:
    """One resource as it would be sent."""

    typ: str
    name: str
    inputs: dict[str, Any]
    id: str
    urn: str
    parent: str
    dependencies: frozenset[str]
    """URNs, those given and those that follow from outputs."""
    protect: bool

    @property
    def plain(self) -> dict[str, Any]:
        """The inputs without marks of secrecy."""
        plain: dict[str, Any] = unwrapped(self.inputs)
        return plain


@dataclass
class Recording(pulumi.runtime.Mocks):
    """The mocks and what they saw."""

    preview: bool = False
    seen: dict[tuple[str, str], tuple[str, dict[str, Any]]] = field(default_factory=dict)
    resources: list[Recorded] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = unwrapped(args.inputs)
        if self.preview:
            shaped = {"identity": _identity(inputs)} if "userAssignedIdentities" in inputs.get("identity", {}) else {}
            return "", {**args.inputs, **shaped}
        resource_id, state = _created(args.typ, args.name, inputs)
        self.seen[args.typ, args.name] = resource_id, dict(args.inputs)
        return resource_id, {**args.inputs, **state}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program asks Azure for {args.token}, which needs a subscription to preview")

    def of_type(self, typ: str) -> list[Recorded]:
        return [resource for resource in self.resources if resource.typ == f"azure-native:{typ}"]

    def named(self, typ: str, name: str) -> Recorded:
        (found,) = [resource for resource in self.of_type(typ) if resource.name == name]
        return found

    def dynamic(self) -> list[Recorded]:
        return [resource for resource in self.resources if resource.typ.startswith("pulumi-python:dynamic:")]

    def reaches(self, start: str) -> set[str]:
        """URNs of everything that a resource waits for, directly or not; waiting for a component is for its parts."""
        by_urn = {resource.urn: resource for resource in self.resources}
        found: set[str] = set()
        todo = [start]
        while todo:
            for urn in by_urn[todo.pop()].dependencies & by_urn.keys():
                if urn not in found:
                    found.add(urn)
                    todo.append(urn)
        return found

    def app_settings(self, app: str) -> dict[str, str]:
        site = self.named("web:WebApp", f"func-{app}").plain["siteConfig"]
        return {pair["name"]: pair["value"] for pair in site["appSettings"]}


class _Monitor(MockMonitor):
    """Keeps what a registration says beside its inputs."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording)
        self._recording = recording

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the engine's name
        answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]  # pulumi left it untyped
        if request.type != "pulumi:pulumi:Stack":
            resource_id, inputs = self._recording.seen.get((request.type, request.name), ("", {}))
            if not inputs:
                inputs = pulumi.runtime.rpc.deserialize_properties(request.object, keep_unknowns=True)
            self._recording.resources.append(
                Recorded(
                    typ=request.type,
                    name=request.name,
                    inputs=inputs,
                    id=resource_id,
                    urn=answer.urn,
                    parent=request.parent,
                    dependencies=frozenset(request.dependencies),
                    protect=request.protect,
                )
            )
        return answer


def unwrapped(value: Any) -> Any:
    """A value without the marks that say it is a secret."""
    if isinstance(value, dict):
        if value.get(SECRET_MARK) == SECRET_VALUE:
            return unwrapped(value["value"])
        return {key: unwrapped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrapped(item) for item in value]
    return value


def _created(typ: str, name: str, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Id and computed properties, as Azure Resource Manager would answer."""
    if typ.startswith("tollgate:"):
        return "", {}
    if typ.startswith("pulumi-python:dynamic:"):
        return f"dynamic-{name}", {}
    subscription = f"/subscriptions/{SUBSCRIPTION}"
    if typ == "azure-native:resources:ResourceGroup":
        return f"{subscription}/resourceGroups/{inputs['resourceGroupName']}", {"name": inputs["resourceGroupName"]}
    path = PATHS[typ].format_map(inputs)
    own = (
        path
        if path.startswith("/")
        else f"{subscription}/resourceGroups/{inputs['resourceGroupName']}/providers/{path}"
    )
    state: dict[str, Any] = {"name": own.rsplit("/", 1)[-1]}
    match typ:
        case "azure-native:storage:StorageAccount":
            state["primaryEndpoints"] = {"blob": f"https://{inputs['accountName']}.blob.core.windows.net/"}
        case "azure-native:web:WebApp":
            state["defaultHostName"] = f"{inputs['name']}.azurewebsites.net"
            state["identity"] = _identity(inputs)
        case "azure-native:app:ContainerApp":
            state["identity"] = _identity(inputs)
        case "azure-native:applicationinsights:Component":
            state["connectionString"] = "InstrumentationKey=00000000-0000-0000-0000-00000000000a"
        case "azure-native:dbforpostgresql:Server":
            state["fullyQualifiedDomainName"] = f"{inputs['serverName']}.postgres.database.azure.com"
        case "azure-native:keyvault:Vault":
            vault_uri = f"https://{inputs['vaultName']}.vault.azure.net/"
            state["properties"] = {**inputs["properties"], "vaultUri": vault_uri}
        case "azure-native:managedidentity:UserAssignedIdentity":
            state |= {
                "principalId": f"principal-{inputs['resourceName']}",
                "clientId": f"client-{inputs['resourceName']}",
            }
        case "azure-native:app:ManagedEnvironment":
            internal = inputs["vnetConfiguration"].get("internal")
            state["defaultDomain"] = ENVIRONMENT_DOMAIN
            state["staticIp"] = ENVIRONMENT_ADDRESS if internal else "203.0.113.80"
    return own, state


def _identity(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Asked for as a list of ids, answered as a mapping from id to facts."""
    identity = inputs["identity"]
    return {**identity, "userAssignedIdentities": {str(key): {} for key in identity["userAssignedIdentities"]}}


def run(
    program: Callable[[], Mapping[str, pulumi.Output[Any]]], *, stack: str = "dev", preview: bool = False
) -> Recording:
    """Run a program that returns its outputs."""
    recording = Recording(preview=preview)
    loops = []

    def new_loop() -> asyncio.AbstractEventLoop:
        loops.append(make_loop())
        return loops[-1]

    # Pulumi makes a loop in each of its threads and closes none of them.
    make_loop, asyncio.new_event_loop = asyncio.new_event_loop, new_loop
    # For each resource it also reads where in the source it was declared, a third of the time; nobody looks at it here.
    trace = pulumi_resource._get_stack_trace
    pulumi_resource._get_stack_trace = source_pb2.StackTrace
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pulumi.runtime.set_mocks(recording, project="tollgate", stack=stack, preview=preview, monitor=_Monitor(recording))

    def go() -> pulumi.Output[Any]:
        return pulumi.Output.all(**program()).apply(recording.outputs.update)

    try:
        pulumi.runtime.test(go)()  # type: ignore[no-untyped-call]  # pulumi left it untyped
    finally:
        asyncio.new_event_loop = make_loop
        pulumi_resource._get_stack_trace = trace
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        for each in loops:
            each.close()
    return recording


def write_packages(folder: Path) -> Path:
    """Write packages that look like those of `tollgate package`; their zips hold nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    for app in ("score", "ingest", "drift", "retrain"):
        content = f"package of {app}".encode()
        (folder / f"{app}.zip").write_bytes(content)
        manifest = {
            "format": 1,
            "app": app,
            "file": f"{app}.zip",
            "sha256": hashlib.sha256(content).hexdigest(),
            "functions": [{"name": "health_live"}, {"name": "health_ready"}],
            "shared_version": "0.1.0",
        }
        (folder / f"{app}.manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder
