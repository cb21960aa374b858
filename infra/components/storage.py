"""Storage accounts: one per app for the host, one for the data of all apps. Entra tokens only."""

from __future__ import annotations

from typing import Final

import pulumi
from pulumi_azure_native import storage

from infra.components.network import PrivateNetwork
from infra.components.observability import Observability, diagnose
from infra.context import Context, component_type
from infra.topology import CONTAINERS

PACKAGES: Final = "packages"
"""Container of an app's own account that its package is deployed to."""


class Account(pulumi.ComponentResource):
    """A storage account that accepts no key, with its containers.

    Attributes:
        account: The account.
        containers: By name.
    """

    account: storage.StorageAccount
    containers: dict[str, storage.BlobContainer]

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork | None,
        *,
        redundancy: str,
        containers: tuple[str, ...],
        logged: tuple[str, ...],
        keeps_deleted_days: int,
        state: bool = False,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("Account"), f"storage-{name}", None, opts)
        config = context.config
        within = context.within(self, state=state)
        closed = network is not None
        self.account = storage.StorageAccount(
            name,
            resource_group_name=context.group.name,
            location=config.location,
            account_name=context.names.account(name),
            kind=storage.Kind.STORAGE_V2,
            sku=storage.SkuArgs(name=redundancy),
            access_tier=storage.AccessTier.HOT,
            allow_blob_public_access=False,
            allow_shared_key_access=False,
            allow_cross_tenant_replication=False,
            default_to_o_auth_authentication=True,
            enable_https_traffic_only=True,
            minimum_tls_version=storage.MinimumTlsVersion.TLS1_2,
            is_local_user_enabled=False,
            is_sftp_enabled=False,
            public_network_access=(
                storage.PublicNetworkAccess.DISABLED if closed else storage.PublicNetworkAccess.ENABLED
            ),
            network_rule_set=storage.NetworkRuleSetArgs(
                default_action=storage.DefaultAction.DENY if closed else storage.DefaultAction.ALLOW,
                bypass=storage.Bypass.NONE,
            ),
            tags=context.tags,
            opts=within,
        )
        service = storage.BlobServiceProperties(
            f"{name}-blobs",
            resource_group_name=context.group.name,
            account_name=self.account.name,
            blob_services_name="default",
            delete_retention_policy=storage.DeleteRetentionPolicyArgs(
                enabled=True, days=keeps_deleted_days, allow_permanent_delete=False
            ),
            container_delete_retention_policy=storage.DeleteRetentionPolicyArgs(enabled=True, days=7),
            opts=context.within(self),
        )
        self.containers = {
            container: storage.BlobContainer(
                f"{name}-{container}",
                resource_group_name=context.group.name,
                account_name=self.account.name,
                container_name=container,
                public_access=storage.PublicAccess.NONE,
                opts=within,
            )
            for container in containers
        }
        diagnose(f"{name}-blobs", service, service.id, observability, categories=logged)
        if network is not None:
            network.endpoint(f"{name}-blob", self.account, self.account.id, "blob")
        self.register_outputs({})


class DataStorage(pulumi.ComponentResource):
    """The account that holds models, reports, dead letters, receipts and the seals of the decision log.

    Attributes:
        account: The account.
        containers: By name, those of `infra.topology.CONTAINERS` and `mlflow` where there is one.
    """

    account: storage.StorageAccount
    containers: dict[str, storage.BlobContainer]

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("DataStorage"), name, None, opts)
        config = context.config
        data = Account(
            "data",
            context,
            observability,
            network,
            redundancy=config.storage_redundancy,
            containers=(*CONTAINERS, *(("mlflow",) if config.mlflow else ())),
            # Reads are left out: the scoring app polls its champion, which would be most of the log.
            logged=("StorageWrite", "StorageDelete"),
            keeps_deleted_days=30,
            state=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.account, self.containers = data.account, data.containers
        within = context.within(self)
        for container, facts in CONTAINERS.items():
            if facts.immutable:
                storage.BlobContainerImmutabilityPolicy(
                    f"immutable-{container}",
                    resource_group_name=context.group.name,
                    account_name=self.account.name,
                    container_name=self.containers[container].name,
                    immutability_period_since_creation_in_days=config.seal_retention_days,
                    allow_protected_append_writes=False,
                    opts=context.within(self, state=True),
                )
        storage.ManagementPolicy(
            "lifecycle",
            resource_group_name=context.group.name,
            account_name=self.account.name,
            management_policy_name="default",
            policy=storage.ManagementPolicySchemaArgs(
                rules=[
                    storage.ManagementPolicyRuleArgs(
                        name=f"expire-{container}",
                        type=storage.RuleType.LIFECYCLE,
                        enabled=True,
                        definition=storage.ManagementPolicyDefinitionArgs(
                            filters=storage.ManagementPolicyFilterArgs(
                                blob_types=["blockBlob"], prefix_match=[f"{container}/"]
                            ),
                            actions=storage.ManagementPolicyActionArgs(
                                base_blob=storage.ManagementPolicyBaseBlobArgs(
                                    delete=storage.DateAfterModificationArgs(
                                        days_after_modification_greater_than=facts.days
                                    )
                                )
                            ),
                        ),
                    )
                    for container, facts in CONTAINERS.items()
                    if facts.days is not None
                ]
            ),
            opts=within,
        )
        self.register_outputs({})
