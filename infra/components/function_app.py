"""One function app: its identity, its storage, its plan, its settings. Nothing in it is a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_azure_native import managedidentity, web

from infra.components.network import PrivateNetwork
from infra.components.observability import Observability, diagnose
from infra.components.storage import PACKAGES, Account
from infra.context import Context, component_type

PYTHON: Final = "3.13"
HEALTH: Final = ("/api/health/live", "/api/health/ready")
"""Routes without a key: whoever balances load or deploys holds none."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large an app is.

    Attributes:
        memory_mb: Per instance; 512, 2048 and 4096 come with a quarter of a core, one and two.
        max_instances: Upper bound.
        always_ready: Instances of the HTTP group that never sleep.
        http_concurrency: Requests at a time per instance. Python's own default is one, so it is always stated.
    """

    memory_mb: int
    max_instances: int
    always_ready: int
    http_concurrency: int


class AppIdentity(pulumi.ComponentResource):
    """An identity of its own per app; it exists, with its roles, before the app first starts.

    Attributes:
        identity: The user-assigned identity; its name is also the app's login in Postgres.
        login: That name.
    """

    identity: managedidentity.UserAssignedIdentity
    login: str

    def __init__(self, app: str, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(component_type("AppIdentity"), f"identity-{app}", None, opts)
        self.login = context.names.within_group(f"id-{app}")
        self.identity = managedidentity.UserAssignedIdentity(
            f"id-{app}",
            resource_group_name=context.group.name,
            location=context.config.location,
            resource_name_=self.login,
            tags=context.tags,
            opts=context.within(self),
        )
        self.register_outputs({})


class FunctionApp(pulumi.ComponentResource):
    """A Flex Consumption app with a plan of its own, as that plan demands.

    Attributes:
        app: The app.
    """

    app: web.WebApp

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork | None,
        *,
        identity: AppIdentity,
        host_storage: Account,
        size: Size,
        settings: Mapping[str, pulumi.Input[str]],
        public: bool,
        entra_client_id: str = "",
        depends_on: Sequence[pulumi.Resource] = (),
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("FunctionApp"), f"app-{name}", None, opts)
        config, within = context.config, context.within(self)
        plan = web.AppServicePlan(
            f"plan-{name}",
            resource_group_name=context.group.name,
            location=config.location,
            name=context.names.within_group(f"plan-{name}"),
            kind="functionapp",
            reserved=True,
            sku=web.SkuDescriptionArgs(name="FC1", tier="FlexConsumption"),
            zone_redundant=config.profile == "prod",
            tags=context.tags,
            opts=within,
        )
        packages = host_storage.containers[PACKAGES]
        always_ready = (
            [web.FunctionsAlwaysReadyConfigArgs(name="http", instance_count=size.always_ready)]
            if size.always_ready
            else None
        )
        self.app = web.WebApp(
            f"func-{name}",
            resource_group_name=context.group.name,
            location=config.location,
            name=context.names.in_azure(f"func-{name}"),
            kind="functionapp,linux",
            reserved=True,
            https_only=True,
            client_affinity_enabled=False,
            server_farm_id=plan.id,
            identity=web.ManagedServiceIdentityArgs(
                type=web.ManagedServiceIdentityType.USER_ASSIGNED, user_assigned_identities=[identity.identity.id]
            ),
            key_vault_reference_identity=identity.identity.id,
            virtual_network_subnet_id=network.subnets[name].id if network is not None else None,
            public_network_access="Enabled" if public else "Disabled",
            function_app_config=web.FunctionAppConfigArgs(
                deployment=web.FunctionsDeploymentArgs(
                    storage=web.FunctionsDeploymentStorageArgs(
                        type=web.FunctionsDeploymentStorageType.BLOB_CONTAINER,
                        value=pulumi.Output.concat(host_storage.account.primary_endpoints.blob, packages.name),
                        authentication=web.FunctionsDeploymentStorageAuthenticationArgs(
                            type=web.AuthenticationType.USER_ASSIGNED_IDENTITY,
                            user_assigned_identity_resource_id=identity.identity.id,
                        ),
                    )
                ),
                runtime=web.FunctionsRuntimeArgs(name=web.RuntimeName.PYTHON, version=PYTHON),
                scale_and_concurrency=web.FunctionsScaleAndConcurrencyArgs(
                    instance_memory_mb=size.memory_mb,
                    maximum_instance_count=size.max_instances,
                    always_ready=always_ready,
                    triggers=web.FunctionsScaleAndConcurrencyTriggersArgs(
                        http=web.FunctionsScaleAndConcurrencyTriggersHttpArgs(
                            per_instance_concurrency=size.http_concurrency
                        )
                    ),
                ),
            ),
            site_config=web.SiteConfigArgs(
                min_tls_version=web.SupportedTlsVersions.SUPPORTED_TLS_VERSIONS_1_2,
                scm_min_tls_version=web.SupportedTlsVersions.SUPPORTED_TLS_VERSIONS_1_2,
                ftps_state=web.FtpsState.DISABLED,
                http20_enabled=True,
                remote_debugging_enabled=False,
                app_settings=[web.NameValuePairArgs(name=key, value=settings[key]) for key in sorted(settings)],
            ),
            tags=context.tags,
            opts=pulumi.ResourceOptions.merge(within, pulumi.ResourceOptions(depends_on=list(depends_on))),
        )
        web.WebAppFtpAllowed(
            f"no-ftp-{name}",
            resource_group_name=context.group.name,
            name=self.app.name,
            allow=False,
            opts=within,
        )
        web.WebAppScmAllowed(
            f"no-basic-login-{name}",
            resource_group_name=context.group.name,
            name=self.app.name,
            allow=False,
            opts=within,
        )
        if entra_client_id:
            _entra_sign_in(name, context, self.app, entra_client_id, within)
        diagnose(f"func-{name}", self.app, self.app.id, observability, categories=("FunctionAppLogs",))
        if network is not None and not public:
            network.endpoint(f"func-{name}", self.app, self.app.id, "sites")
        self.register_outputs({})

    @property
    def url(self) -> pulumi.Output[str]:
        """Address of the app, without a slash at the end."""
        return self.app.default_host_name.apply(lambda host: f"https://{host}")

    @property
    def deployment_url(self) -> pulumi.Output[str]:
        """Address of the app's deployment endpoint."""
        return self.app.default_host_name.apply(_scm)


def _scm(host: str) -> str:
    """`func.azurewebsites.net` is deployed to at `func.scm.azurewebsites.net`."""
    name, _, rest = host.partition(".")
    return f"https://{name}.scm.{rest}"


def _entra_sign_in(
    name: str, context: Context, app: web.WebApp, client_id: str, within: pulumi.ResourceOptions
) -> web.WebAppAuthSettingsV2:
    """Callers need a token of the tenant for the app registration, beside the function key; health stays open."""
    return web.WebAppAuthSettingsV2(
        f"sign-in-{name}",
        resource_group_name=context.group.name,
        name=app.name,
        platform=web.AuthPlatformArgs(enabled=True, runtime_version="~1"),
        global_validation=web.GlobalValidationArgs(
            require_authentication=True,
            unauthenticated_client_action=web.UnauthenticatedClientActionV2.RETURN401,
            excluded_paths=list(HEALTH),
        ),
        http_settings=web.HttpSettingsArgs(require_https=True),
        identity_providers=web.IdentityProvidersArgs(
            azure_active_directory=web.AzureActiveDirectoryArgs(
                enabled=True,
                registration=web.AzureActiveDirectoryRegistrationArgs(
                    client_id=client_id,
                    open_id_issuer=f"https://login.microsoftonline.com/{context.config.tenant_id}/v2.0",
                ),
                validation=web.AzureActiveDirectoryValidationArgs(allowed_audiences=[f"api://{client_id}", client_id]),
            )
        ),
        login=web.LoginArgs(token_store=web.TokenStoreArgs(enabled=False)),
        opts=within,
    )
