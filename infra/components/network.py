"""The virtual network of a private stack: a subnet per app, one for private endpoints, private name zones."""

from __future__ import annotations

import ipaddress
from typing import Final

import pulumi
from pulumi_azure_native import network, privatedns

from infra.context import Context, component_type
from infra.topology import APPS

SPACE: Final = ipaddress.ip_network("10.64.0.0/20")
"""Of the network; free in most address plans, and nothing is peered by default."""

ENDPOINTS: Final = "endpoints"
REGISTRY: Final = "registry"

# A Flex app takes one address per instance beside what Azure reserves; /23 bears score's hundreds of them.
SUBNETS: Final[dict[str, str]] = {
    "score": "10.64.0.0/23",
    "ingest": "10.64.2.0/24",
    "drift": "10.64.3.0/26",
    "retrain": "10.64.3.64/26",
    ENDPOINTS: "10.64.4.0/24",
    REGISTRY: "10.64.6.0/23",
}

FLEX_DELEGATION: Final = "Microsoft.App/environments"
"""What the subnet of a Flex app is delegated to. Source: "Flex Consumption plan", virtual network integration."""

ZONES: Final[dict[str, str]] = {
    "blob": "privatelink.blob.core.windows.net",
    "namespace": "privatelink.servicebus.windows.net",
    "vault": "privatelink.vaultcore.azure.net",
    "postgresqlServer": "privatelink.postgres.database.azure.com",
    "sites": "privatelink.azurewebsites.net",
}
"""Group id of a private endpoint -> the name zone it is found in. Source: "Private endpoint DNS configuration"."""


ONE_ADDRESS: Final = {"all": "*", "apex": "@"}
"""The records of a domain behind one address: each name in it, and its own. Source: Azure Container Apps, "Virtual
network configuration", DNS of an internal environment, and "Custom domain names", which wants the apex."""

RECORD_TTL_S: Final = 3600


class PrivateNetwork(pulumi.ComponentResource):
    """The network of a stack and the doors in it.

    Attributes:
        subnets: By the names of `SUBNETS`.
        doors: What has to exist before anybody reaches a service by its name; grows with every endpoint.
    """

    subnets: dict[str, network.Subnet]
    doors: list[pulumi.Resource]

    def __init__(self, name: str, context: Context, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(component_type("PrivateNetwork"), name, None, opts)
        self._context = context
        within = context.within(self)
        guard = network.NetworkSecurityGroup(
            "guard",
            resource_group_name=context.group.name,
            location=context.config.location,
            network_security_group_name=context.names.within_group("nsg"),
            tags=context.tags,
            opts=within,
        )
        self._vnet = network.VirtualNetwork(
            "vnet",
            resource_group_name=context.group.name,
            location=context.config.location,
            virtual_network_name=context.names.within_group("vnet"),
            address_space=network.AddressSpaceArgs(address_prefixes=[str(SPACE)]),
            tags=context.tags,
            # Subnets are resources of their own; without this, each update of the network would try to remove them.
            opts=pulumi.ResourceOptions.merge(within, pulumi.ResourceOptions(ignore_changes=["subnets"])),
        )
        self.subnets, self.doors = {}, []
        previous: list[pulumi.Resource] = []
        for subnet, prefix in SUBNETS.items():
            if subnet == REGISTRY and not context.config.mlflow:
                continue
            delegated = subnet in APPS or subnet == REGISTRY
            self.subnets[subnet] = network.Subnet(
                f"subnet-{subnet}",
                resource_group_name=context.group.name,
                virtual_network_name=self._vnet.name,
                subnet_name=subnet,
                address_prefix=prefix,
                network_security_group=network.NetworkSecurityGroupArgs(id=guard.id),
                delegations=[network.DelegationArgs(name="apps", service_name=FLEX_DELEGATION)] if delegated else None,
                # Azure changes a network by one request at a time.
                opts=pulumi.ResourceOptions(parent=self, depends_on=previous),
            )
            previous = [self.subnets[subnet]]
        self._zones = {group_id: self._zone(group_id, zone, within) for group_id, zone in ZONES.items()}
        self.register_outputs({})

    def endpoint(self, name: str, resource: pulumi.Resource, resource_id: pulumi.Input[str], group_id: str) -> None:
        """Give a service an address in the network, found under its usual name.

        Args:
            name: Of the endpoint, unique in the stack.
            resource: The service.
            resource_id: Its ARM id.
            group_id: A key of `ZONES`.
        """
        context = self._context
        within = pulumi.ResourceOptions(parent=resource)
        private = network.PrivateEndpoint(
            f"endpoint-{name}",
            resource_group_name=context.group.name,
            location=context.config.location,
            private_endpoint_name=context.names.within_group(f"pe-{name}"),
            subnet=network.SubnetArgs(id=self.subnets[ENDPOINTS].id),
            private_link_service_connections=[
                network.PrivateLinkServiceConnectionArgs(
                    name=name, private_link_service_id=resource_id, group_ids=[group_id]
                )
            ],
            tags=context.tags,
            opts=within,
        )
        self.doors.append(
            network.PrivateDnsZoneGroup(
                f"endpoint-name-{name}",
                resource_group_name=context.group.name,
                private_endpoint_name=private.name,
                private_dns_zone_group_name="default",
                private_dns_zone_configs=[
                    network.PrivateDnsZoneConfigArgs(name=group_id, private_dns_zone_id=self._zones[group_id].id)
                ],
                opts=within,
            )
        )

    def domain(
        self, name: str, resource: pulumi.Resource, domain: pulumi.Input[str], address: pulumi.Input[str]
    ) -> None:
        """Lead every name of a domain to one address in the network; what is inside finds them, and nobody else.

        Args:
            name: Of the zone, unique in the stack and no key of `ZONES`.
            resource: What answers there.
            domain: The domain.
            address: IPv4, in the network.
        """
        within = pulumi.ResourceOptions(parent=resource)
        zone = self._zone(name, domain, within)
        self.doors += [
            privatedns.PrivateRecordSet(
                f"zone-{name}-{which}",
                resource_group_name=self._context.group.name,
                private_zone_name=zone.name,
                record_type="A",
                relative_record_set_name=record,
                ttl=RECORD_TTL_S,
                a_records=[privatedns.ARecordArgs(ipv4_address=address)],
                opts=within,
            )
            for which, record in ONE_ADDRESS.items()
        ]

    def _zone(self, name: str, domain: pulumi.Input[str], within: pulumi.ResourceOptions) -> privatedns.PrivateZone:
        """Make a name zone that the network asks."""
        context = self._context
        zone = privatedns.PrivateZone(
            f"zone-{name}",
            resource_group_name=context.group.name,
            location="Global",
            private_zone_name=domain,
            tags=context.tags,
            opts=within,
        )
        self.doors.append(
            privatedns.VirtualNetworkLink(
                f"zone-link-{name}",
                resource_group_name=context.group.name,
                location="Global",
                private_zone_name=zone.name,
                virtual_network_link_name="vnet",
                virtual_network=privatedns.SubResourceArgs(id=self._vnet.id),
                registration_enabled=False,
                tags=context.tags,
                opts=within,
            )
        )
        return zone
