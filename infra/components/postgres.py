"""The database: a PostgreSQL flexible server with Entra login only, backups and an audit trail."""

from __future__ import annotations

from typing import Final

import pulumi
from pulumi_azure_native import dbforpostgresql

from infra.components.network import PrivateNetwork
from infra.components.observability import Observability, diagnose
from infra.context import Context, component_type

DATABASE: Final = "tollgate"
VERSION: Final = "16"

PARAMETERS: Final[dict[str, str]] = {
    "azure.extensions": "PGAUDIT",
    "shared_preload_libraries": "pg_stat_statements,pgaudit",
    # Who changed the schema or a role, not every statement: an INSERT per decision would fill the log.
    "pgaudit.log": "ddl,role",
    "require_secure_transport": "on",
    "ssl_min_protocol_version": "TLSv1.2",
    "log_connections": "on",
    "log_disconnections": "off",
    # A worker that froze inside a transaction must not hold an entity's row for ever; 60 s, in milliseconds.
    "idle_in_transaction_session_timeout": "60000",
}
"""Server parameters, on every size."""

POOLER_PARAMETERS: Final[dict[str, str]] = {"pgbouncer.enabled": "true", "pgbouncer.pool_mode": "transaction"}
"""PgBouncer on port 6432, which burstable sizes do not have. ADR 0017 says who uses it."""

AZURE_SERVICES: Final = "0.0.0.0"  # noqa: S104 - Azure's name for "services in Azure", no address to listen on


class Postgres(pulumi.ComponentResource):
    """The server, its database and its administrators.

    Attributes:
        server: The server.
        database: The product's database.
        ready: What has to exist before anyone logs in.
    """

    server: dbforpostgresql.Server
    database: dbforpostgresql.Database
    ready: list[pulumi.Resource]

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("Postgres"), name, None, opts)
        config = context.config
        size = config.postgres
        self.server = dbforpostgresql.Server(
            "postgres",
            resource_group_name=context.group.name,
            location=config.location,
            server_name=context.names.in_azure("psql"),
            version=VERSION,
            create_mode="Default",
            sku=dbforpostgresql.SkuArgs(name=config.postgres_size, tier=size.tier),
            storage=dbforpostgresql.StorageArgs(
                storage_size_gb=config.postgres_storage_gb, auto_grow=dbforpostgresql.StorageAutoGrow.ENABLED
            ),
            auth_config=dbforpostgresql.AuthConfigArgs(
                active_directory_auth="Enabled",
                password_auth="Disabled",  # noqa: S106 - a switch
                tenant_id=config.tenant_id,
            ),
            backup=dbforpostgresql.BackupArgs(
                backup_retention_days=config.postgres_backup_days,
                geo_redundant_backup="Enabled" if config.postgres_geo_backup else "Disabled",
            ),
            high_availability=dbforpostgresql.HighAvailabilityArgs(
                mode="ZoneRedundant" if config.postgres_high_availability else "Disabled"
            ),
            network=dbforpostgresql.NetworkArgs(public_network_access="Disabled" if network is not None else "Enabled"),
            # Sunday 02:00 UTC, where card traffic is lowest.
            maintenance_window=dbforpostgresql.MaintenanceWindowArgs(
                custom_window="Enabled", day_of_week=0, start_hour=2, start_minute=0
            ),
            tags=context.tags,
            opts=context.within(self, state=True),
        )
        # The server takes one administrative request at a time, so what follows forms a chain.
        chain: list[pulumi.Resource] = [self.server]

        def after() -> pulumi.ResourceOptions:
            return pulumi.ResourceOptions(parent=self, depends_on=[chain[-1]])

        chain.append(
            dbforpostgresql.AdministratorsMicrosoftEntra(
                "postgres-operators",
                resource_group_name=context.group.name,
                server_name=self.server.name,
                object_id=config.operators_id,
                principal_name=config.operators_name,
                principal_type="Group",
                tenant_id=config.tenant_id,
                opts=after(),
            )
        )
        parameters = PARAMETERS | (POOLER_PARAMETERS if size.tier == "GeneralPurpose" else {})
        for parameter, value in parameters.items():
            chain.append(
                dbforpostgresql.Configuration(
                    f"parameter-{parameter}",
                    resource_group_name=context.group.name,
                    server_name=self.server.name,
                    configuration_name=parameter,
                    source="user-override",
                    value=value,
                    opts=after(),
                )
            )
        if network is None:
            addresses = {"azure-services": AZURE_SERVICES}
            if config.deployer_address:
                addresses["deployer"] = config.deployer_address
            for rule, address in addresses.items():
                chain.append(
                    dbforpostgresql.FirewallRule(
                        f"door-{rule}",
                        resource_group_name=context.group.name,
                        server_name=self.server.name,
                        firewall_rule_name=rule,
                        start_ip_address=address,
                        end_ip_address=address,
                        opts=after(),
                    )
                )
        self.database = dbforpostgresql.Database(
            "database",
            resource_group_name=context.group.name,
            server_name=self.server.name,
            database_name=DATABASE,
            charset="UTF8",
            # Byte order: the same sort on every machine, and the fastest index.
            collation="C",
            opts=pulumi.ResourceOptions.merge(after(), pulumi.ResourceOptions(protect=config.locks)),
        )
        chain.append(self.database)
        self.ready = chain[1:]
        diagnose("postgres", self.server, self.server.id, observability)
        if network is not None:
            network.endpoint("postgres", self.server, self.server.id, "postgresqlServer")
        self.register_outputs({})
