"""The Key Vault: access by role only, nothing that was deleted is gone at once."""

from __future__ import annotations

import pulumi
from pulumi_azure_native import keyvault

from infra.components.network import PrivateNetwork
from infra.components.observability import Observability, diagnose
from infra.context import Context, component_type


class Vault(pulumi.ComponentResource):
    """The vault that holds the keys of the surrogates.

    Attributes:
        vault: The vault.
    """

    vault: keyvault.Vault

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("Vault"), name, None, opts)
        config = context.config
        self.vault = keyvault.Vault(
            "vault",
            resource_group_name=context.group.name,
            location=config.location,
            vault_name=context.names.in_azure("kv"),
            properties=keyvault.VaultPropertiesArgs(
                tenant_id=config.tenant_id,
                sku=keyvault.SkuArgs(family=keyvault.SkuFamily.A, name=keyvault.SkuName.STANDARD),
                enable_rbac_authorization=True,
                enable_soft_delete=True,
                enable_purge_protection=True,
                soft_delete_retention_in_days=90,
                public_network_access="Disabled" if network is not None else "Enabled",
                network_acls=keyvault.NetworkRuleSetArgs(
                    bypass=keyvault.NetworkRuleBypassOptions.NONE,
                    default_action=(
                        keyvault.NetworkRuleAction.DENY if network is not None else keyvault.NetworkRuleAction.ALLOW
                    ),
                ),
            ),
            tags=context.tags,
            opts=context.within(self, state=True),
        )
        diagnose("vault", self.vault, self.vault.id, observability)
        if network is not None:
            network.endpoint("vault", self.vault, self.vault.id, "vault")
        self.register_outputs({})

    def secret_uri(self, name: str) -> pulumi.Output[str]:
        """Return the address of a secret, without a version: whoever reads follows a rotation within a day."""
        return self.vault.properties.apply(lambda p: f"{(p.vault_uri or '').rstrip('/')}/secrets/{name}")
