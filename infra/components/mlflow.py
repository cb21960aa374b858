"""An MLflow server, behind a flag: a Container App inside the network, keyless like the rest.

MLflow reads the database's password at each new connection from libpq's password file, and a sidecar of the same image
writes a fresh Entra token into it. Artifacts go to Blob with the same identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pulumi
from pulumi_azure_native import app

from infra.components.function_app import AppIdentity
from infra.components.network import REGISTRY, PrivateNetwork
from infra.components.observability import Observability, diagnose
from infra.components.postgres import Postgres
from infra.components.storage import DataStorage
from infra.context import Context, component_type

PORT: Final = 5000
DATABASE: Final = "mlflow"
PASSWORD_FOLDER: Final = "/var/run/postgres"  # noqa: S105 - a folder
TOKEN_SCRIPT: Final = Path(__file__).with_name("mlflow_token.py")

SERVER_ENVIRONMENT: Final = [
    app.EnvironmentVarArgs(name="MLFLOW_DISABLE_TELEMETRY", value="true"),  # it would report its use to its makers
    # Two processes in place of ten, which its memory could not hold; Tollgate runs its jobs elsewhere.
    app.EnvironmentVarArgs(name="MLFLOW_SERVER_ENABLE_JOB_EXECUTION", value="false"),
]


class Mlflow(pulumi.ComponentResource):
    """The tracking server and model registry; only the network reaches it.

    Attributes:
        url: Its address inside the network.
    """

    url: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork,
        *,
        identity: AppIdentity,
        data: DataStorage,
        postgres: Postgres,
        depends_on: list[pulumi.Resource],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("Mlflow"), name, None, opts)
        config, within = context.config, context.within(self)
        environment = app.ManagedEnvironment(
            "registry-environment",
            resource_group_name=context.group.name,
            location=config.location,
            environment_name=context.names.within_group("cae"),
            app_logs_configuration=app.AppLogsConfigurationArgs(destination="azure-monitor"),
            vnet_configuration=app.VnetConfigurationArgs(
                infrastructure_subnet_id=network.subnets[REGISTRY].id, internal=True
            ),
            workload_profiles=[app.WorkloadProfileArgs(name="Consumption", workload_profile_type="Consumption")],
            tags=context.tags,
            opts=within,
        )
        # An internal environment has no entry in public DNS: without one here, no app finds it.
        network.domain("registry", environment, environment.default_domain, environment.static_ip)
        host = postgres.server.fully_qualified_domain_name
        store = pulumi.Output.concat(
            "postgresql://", identity.login, "@", host, f":5432/{DATABASE}?sslmode=verify-full&sslrootcert=system"
        )
        artifacts = pulumi.Output.concat("wasbs://mlflow@", data.account.name, ".blob.core.windows.net/")
        address = pulumi.Output.concat(context.names.within_group("mlflow"), ".", environment.default_domain)
        mount = app.VolumeMountArgs(volume_name="password", mount_path=PASSWORD_FOLDER)
        environment_variables = [
            app.EnvironmentVarArgs(name="AZURE_CLIENT_ID", value=identity.identity.client_id),
            app.EnvironmentVarArgs(name="PGPASSFILE", value=f"{PASSWORD_FOLDER}/pgpass"),
        ]
        app.ContainerApp(
            "registry",
            resource_group_name=context.group.name,
            location=config.location,
            container_app_name=context.names.within_group("mlflow"),
            environment_id=environment.id,
            workload_profile_name="Consumption",
            identity=app.ManagedServiceIdentityArgs(
                type=app.ManagedServiceIdentityType.USER_ASSIGNED, user_assigned_identities=[identity.identity.id]
            ),
            configuration=app.ConfigurationArgs(
                active_revisions_mode=app.ActiveRevisionsMode.SINGLE,
                # External to the environment, which is itself inside the network and has no public address.
                ingress=app.IngressArgs(external=True, allow_insecure=False, target_port=PORT, transport="http"),
            ),
            template=app.TemplateArgs(
                containers=[
                    app.ContainerArgs(
                        name="mlflow",
                        image=config.mlflow_image,
                        command=["mlflow", "server"],
                        args=[
                            "--host=0.0.0.0",
                            f"--port={PORT}",
                            pulumi.Output.concat("--backend-store-uri=", store),
                            pulumi.Output.concat("--artifacts-destination=", artifacts),
                            # It refuses requests to any other name, and does not know its own.
                            pulumi.Output.concat("--allowed-hosts=", address),
                        ],
                        env=[*environment_variables, *SERVER_ENVIRONMENT],
                        resources=app.ContainerResourcesArgs(cpu=0.5, memory="1Gi"),
                        volume_mounts=[mount],
                    ),
                    app.ContainerArgs(
                        name="token",
                        image=config.mlflow_image,
                        command=["python", "-c"],
                        args=[TOKEN_SCRIPT.read_text(encoding="utf-8")],
                        env=environment_variables,
                        resources=app.ContainerResourcesArgs(cpu=0.25, memory="0.5Gi"),
                        volume_mounts=[mount],
                    ),
                ],
                scale=app.ScaleArgs(min_replicas=1, max_replicas=1),
                volumes=[app.VolumeArgs(name="password", storage_type=app.StorageType.EMPTY_DIR)],
            ),
            tags=context.tags,
            opts=pulumi.ResourceOptions.merge(within, pulumi.ResourceOptions(depends_on=depends_on)),
        )
        diagnose("registry", environment, environment.id, observability)
        self.url = pulumi.Output.concat("https://", address)
        self.register_outputs({})
