"""The policies: what no resource of a stack may be, whoever wrote the program.

They see what would be sent to Azure, so they also hold for resources that the program does not make today. As a pack
they run in `pulumi preview` and `pulumi up`; the tests run the same objects over recorded resources.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from pulumi_policy import (
    EnforcementLevel,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

from infra.roles import FORBIDDEN

Check = Callable[[ResourceValidationArgs, ReportViolation], None]

NATIVE: Final = "azure-native:"
REQUIRED_TAGS: Final = frozenset({"product", "environment", "profile"})

UNTAGGED: Final = frozenset({
    # Kinds that Azure does not tag, or that are facets of a tagged resource.
    "app:ManagedEnvironmentStorage", "authorization:ManagementLockByScope", "authorization:RoleAssignment",
    "consumption:Budget", "dashboard:DashboardDefinition",
    "dbforpostgresql:AdministratorsMicrosoftEntra", "dbforpostgresql:Configuration",
    "dbforpostgresql:Database", "dbforpostgresql:FirewallRule", "eventhub:ConsumerGroup", "eventhub:EventHub",
    "monitor:DiagnosticSetting", "network:PrivateDnsZoneGroup", "network:Subnet", "privatedns:PrivateRecordSet",
    "storage:BlobContainer", "storage:BlobContainerImmutabilityPolicy", "storage:BlobServiceProperties",
    "storage:ManagementPolicy", "web:WebAppAuthSettingsV2", "web:WebAppFtpAllowed", "web:WebAppScmAllowed",
})  # fmt: skip
"""Types without tags; every other type has to carry them, so a new type is tagged or listed here."""

DIAGNOSED: Final[dict[str, str]] = {
    "storage:StorageAccount": "/blobServices/default",
    "eventhub:Namespace": "",
    "dbforpostgresql:Server": "",
    "keyvault:Vault": "",
    "web:WebApp": "",
    "app:ManagedEnvironment": "",
}
"""Types that have to send their logs to the workspace -> what follows their id in the diagnostic setting."""

MIGHT_BE_SECRET: Final = re.compile(
    r"AccountKey=|SharedAccessKey=|SharedAccessSignature=|Password=|"
    r"\bsig=[A-Za-z0-9%]{20,}|-----BEGIN|\bey[JK][A-Za-z0-9_-]{20,}\.|hooks\.slack\.com/services/",
    re.IGNORECASE,
)

OPENS_TO_ALL: Final = ("0.0.0.0/0", "*", "Internet", "any")


def _rule(name: str, *types: str) -> Callable[[Check], ResourceValidationPolicy]:
    """Make a mandatory policy of a check; its docstring is the description, without types it sees everything."""

    def make(check: Check) -> ResourceValidationPolicy:
        def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
            if not types or args.resource_type.removeprefix(NATIVE) in types:
                check(args, report)

        return ResourceValidationPolicy(
            name=name,
            description=(check.__doc__ or name).strip(),
            validate=validate,
            enforcement_level=EnforcementLevel.MANDATORY,
        )

    return make


def _expect(props: Any, report: ReportViolation, wanted: dict[str, Any]) -> None:
    for path, value in wanted.items():
        found: Any = props
        for part in path.split("."):
            found = found.get(part) if hasattr(found, "get") else None
        if found != value:
            report(f"{path} is {found!r}, must be {value!r}", None)


@_rule("storage-entra-only", "storage:StorageAccount")
def storage_entra_only(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Storage accounts take Entra tokens over TLS 1.2 and nothing else."""
    _expect(
        args.props,
        report,
        {
            "allowSharedKeyAccess": False,
            "allowBlobPublicAccess": False,
            "allowCrossTenantReplication": False,
            "defaultToOAuthAuthentication": True,
            "enableHttpsTrafficOnly": True,
            "minimumTlsVersion": "TLS1_2",
            "isLocalUserEnabled": False,
            "isSftpEnabled": False,
        },
    )


@_rule("container-private", "storage:BlobContainer")
def container_private(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """No container can be read without a login."""
    _expect(args.props, report, {"publicAccess": "None"})


@_rule("events-entra-only", "eventhub:Namespace")
def events_entra_only(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Event Hubs namespaces take Entra tokens over TLS 1.2 and nothing else."""
    _expect(args.props, report, {"disableLocalAuth": True, "minimumTlsVersion": "1.2"})


@_rule(
    "no-access-keys",
    "eventhub:NamespaceAuthorizationRule",
    "eventhub:EventHubAuthorizationRule",
    "storage:LocalUser",
    "web:WebAppHostKey",
    "web:WebAppFunctionKey",
    "web:WebAppPublishingCredential",
    "storage:Blob",
)
def no_access_keys(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Resources that are keys, or that need an account's key to be made, are not declared."""
    report(f"{args.resource_type} is, or needs, an access key", None)


@_rule("postgres-entra-only", "dbforpostgresql:Server")
def postgres_entra_only(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Postgres has no password login."""
    _expect(args.props, report, {"authConfig.passwordAuth": "Disabled", "authConfig.activeDirectoryAuth": "Enabled"})
    if args.props.get("administratorLoginPassword") or args.props.get("administratorLogin"):
        report("an administrator with a password", None)


@_rule("postgres-parameters", "dbforpostgresql:Configuration")
def postgres_parameters(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Postgres speaks TLS 1.2 or newer and keeps an audit trail."""
    allowed = {
        "require_secure_transport": {"on"},
        "ssl_min_protocol_version": {"TLSv1.2", "TLSv1.3"},
        "log_connections": {"on"},
    }
    name, value = str(args.props.get("configurationName")), str(args.props.get("value"))
    if name in allowed and value not in allowed[name]:
        report(f"{name} is {value!r}, must be one of {sorted(allowed[name])}", None)
    if name == "shared_preload_libraries" and "pgaudit" not in value.lower().split(","):
        report("pgaudit is not loaded", None)
    if name == "pgaudit.log" and value.strip().lower() in {"", "none"}:
        report("pgaudit records nothing", None)


@_rule("no-public-database", "dbforpostgresql:FirewallRule")
def no_public_database(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """A database's door is for one address; `0.0.0.0` alone is Azure's name for services inside Azure."""
    start, end = str(args.props.get("startIpAddress")), str(args.props.get("endIpAddress"))
    try:
        first, last = ipaddress.IPv4Address(start), ipaddress.IPv4Address(end)
    except ValueError:
        report(f"{start}-{end} are no addresses", None)
        return
    if first != last:
        report(f"{start}-{end} is a range", None)


@_rule("vault-by-role", "keyvault:Vault")
def vault_by_role(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Vaults give access by role, and nothing in them can be purged."""
    _expect(
        args.props,
        report,
        {
            "properties.enableRbacAuthorization": True,
            "properties.enableSoftDelete": True,
            "properties.enablePurgeProtection": True,
        },
    )
    if args.props.get("properties", {}).get("accessPolicies"):
        report("access policies beside roles", None)


@_rule("telemetry-entra-only", "applicationinsights:Component")
def telemetry_entra_only(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Application Insights takes telemetry with a token only."""
    _expect(args.props, report, {"disableLocalAuth": True})


@_rule("workspace-entra-only", "operationalinsights:Workspace")
def workspace_entra_only(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Workspaces take logs with a token only."""
    _expect(args.props, report, {"features.disableLocalAuth": True})


@_rule("app-hardened", "web:WebApp")
def app_hardened(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Function apps speak HTTPS over TLS 1.2, have no FTP, an identity of their own, and deploy with it."""
    props = args.props
    _expect(
        props,
        report,
        {
            "httpsOnly": True,
            "siteConfig.minTlsVersion": "1.2",
            "siteConfig.scmMinTlsVersion": "1.2",
            "siteConfig.ftpsState": "Disabled",
            "siteConfig.remoteDebuggingEnabled": False,
            "identity.type": "UserAssigned",
            "functionAppConfig.deployment.storage.authentication.type": "UserAssignedIdentity",
        },
    )
    if len(props.get("identity", {}).get("userAssignedIdentities") or ()) != 1:
        report("not exactly one identity", None)
    if props.get("siteConfig", {}).get("connectionStrings"):
        report("connection strings", None)
    cors = props.get("siteConfig", {}).get("cors") or {}
    if "*" in (cors.get("allowedOrigins") or ()):
        report("any web page may call it (CORS *)", None)


@_rule("no-basic-login", "web:WebAppFtpAllowed", "web:WebAppScmAllowed")
def no_basic_login(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Nobody deploys with a user name and a password."""
    _expect(args.props, report, {"allow": False})


@_rule("roles-narrow", "authorization:RoleAssignment")
def roles_narrow(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Roles are given on one resource, to a stated kind of principal, and none of them hands out rights."""
    definition = str(args.props.get("roleDefinitionId", "")).rsplit("/", 1)[-1]
    if definition in FORBIDDEN:
        report(f"the role {FORBIDDEN[definition]} is too broad", None)
    if "/providers/" not in str(args.props.get("scope", "")):
        report("the scope is a subscription or a resource group", None)
    if args.props.get("principalType") not in {"ServicePrincipal", "Group"}:
        report("principalType must be stated: the SDK says User, and Azure then waits for one", None)


@_rule("ingress-internal", "app:ContainerApp")
def ingress_internal(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Container Apps speak HTTPS only, run an image by digest and hold no secret."""
    ingress = (args.props.get("configuration") or {}).get("ingress") or {}
    if ingress.get("allowInsecure"):
        report("plain HTTP", None)
    if (args.props.get("configuration") or {}).get("secrets"):
        report("secrets in the app", None)
    for container in (args.props.get("template") or {}).get("containers") or ():
        if "@sha256:" not in str(container.get("image")):
            report(f"the image of {container.get('name')} is not pinned by digest", None)


@_rule("environment-internal", "app:ManagedEnvironment")
def environment_internal(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """The environment of Container Apps has no public address."""
    _expect(args.props, report, {"vnetConfiguration.internal": True})


@_rule("network-closed", "network:NetworkSecurityGroup", "network:SecurityRule")
def network_closed(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """No rule lets the internet in."""
    for rule in args.props.get("securityRules") or [args.props]:
        inbound = rule.get("direction") == "Inbound" and rule.get("access") == "Allow"
        if inbound and rule.get("sourceAddressPrefix") in OPENS_TO_ALL:
            report(f"{rule.get('name')} lets the internet in", None)


@_rule("tagged")
def tagged(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Everything that takes tags says product, environment and profile; costs are told apart by them."""
    if not args.resource_type.startswith(NATIVE) or args.resource_type.removeprefix(NATIVE) in UNTAGGED:
        return
    missing = sorted(REQUIRED_TAGS - set(args.props.get("tags") or {}))
    if missing:
        report(f"tags missing: {', '.join(missing)}", None)


@_rule("no-plain-secret")
def no_plain_secret(args: ResourceValidationArgs, report: ReportViolation) -> None:
    """Nothing that looks like a secret is written into a resource."""
    for path, value in _texts(args.props):
        if MIGHT_BE_SECRET.search(value):
            report(f"{path} looks like a secret", None)


def _texts(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(path, value)]
    if hasattr(value, "items"):
        return [found for key, item in value.items() for found in _texts(item, f"{path}.{key}".lstrip("."))]
    # The engine hands over proxies, which are sequences and no lists.
    if isinstance(value, Sequence):
        return [found for index, item in enumerate(value) for found in _texts(item, f"{path}[{index}]")]
    return []


def _diagnosed(args: StackValidationArgs, report: ReportViolation) -> None:
    covered = {
        str(resource.props.get("resourceUri"))
        for resource in args.resources
        if resource.resource_type == f"{NATIVE}monitor:DiagnosticSetting"
    }
    for resource in args.resources:
        suffix = DIAGNOSED.get(resource.resource_type.removeprefix(NATIVE))
        # Where the engine hands over no id, nothing can be said; the tests see them all.
        if suffix is not None and _id(resource) and f"{_id(resource)}{suffix}" not in covered:
            report(f"{resource.name} sends its logs nowhere", resource.urn)


def _id(resource: PolicyResource) -> str:
    return str(resource.props.get("id") or "")


def _private_where_production(args: StackValidationArgs, report: ReportViolation) -> None:
    switches = {
        "storage:StorageAccount": "publicNetworkAccess",
        "eventhub:Namespace": "publicNetworkAccess",
        "dbforpostgresql:Server": "network.publicNetworkAccess",
        "keyvault:Vault": "properties.publicNetworkAccess",
    }
    for resource in args.resources:
        path = switches.get(resource.resource_type.removeprefix(NATIVE))
        if path is None or (resource.props.get("tags") or {}).get("profile") != "prod":
            continue
        found: Any = resource.props
        for part in path.split("."):
            found = found.get(part) if hasattr(found, "get") else None
        if found != "Disabled":
            report(f"{resource.name} can be reached from the internet", resource.urn)


STACK_POLICIES: Final = (
    StackValidationPolicy(
        name="diagnosed",
        description="Every data service, vault and app sends its platform logs to the workspace.",
        validate=_diagnosed,
        enforcement_level=EnforcementLevel.MANDATORY,
    ),
    StackValidationPolicy(
        name="private-production",
        description="Nothing that holds data of a production stack has a public address.",
        validate=_private_where_production,
        enforcement_level=EnforcementLevel.MANDATORY,
    ),
)
"""Policies over all resources of a stack; as a pack, ids are known after an update and checked then."""

RESOURCE_POLICIES: Final = tuple(
    value for value in list(globals().values()) if isinstance(value, ResourceValidationPolicy)
)
"""Policies over one resource each."""
