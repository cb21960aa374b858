"""The event stream: a namespace with its hubs and one consumer group per reader."""

from __future__ import annotations

import pulumi
from pulumi_azure_native import eventhub

from infra.components.network import PrivateNetwork
from infra.components.observability import Observability, diagnose
from infra.context import Context, component_type
from infra.topology import HUBS


class EventHubs(pulumi.ComponentResource):
    """A namespace that accepts Entra tokens only.

    Attributes:
        namespace: The namespace.
        hubs: By name.
    """

    namespace: eventhub.Namespace
    hubs: dict[str, eventhub.EventHub]

    def __init__(
        self,
        name: str,
        context: Context,
        observability: Observability,
        network: PrivateNetwork | None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("EventHubs"), name, None, opts)
        config, within = context.config, context.within(self)
        self.namespace = eventhub.Namespace(
            "events",
            resource_group_name=context.group.name,
            location=config.location,
            namespace_name=context.names.in_azure("evh"),
            sku=eventhub.SkuArgs(
                name=eventhub.SkuName.STANDARD, tier=eventhub.SkuTier.STANDARD, capacity=config.hub_units
            ),
            is_auto_inflate_enabled=config.hub_max_units > config.hub_units,
            maximum_throughput_units=config.hub_max_units if config.hub_max_units > config.hub_units else 0,
            disable_local_auth=True,
            minimum_tls_version=eventhub.TlsVersion.TLS_VERSION_1_2,
            public_network_access=(
                eventhub.PublicNetworkAccess.DISABLED if network is not None else eventhub.PublicNetworkAccess.ENABLED
            ),
            tags=context.tags,
            opts=within,
        )
        self.hubs = {}
        for hub, groups in HUBS.items():
            self.hubs[hub] = eventhub.EventHub(
                f"hub-{hub}",
                resource_group_name=context.group.name,
                namespace_name=self.namespace.name,
                event_hub_name=hub,
                partition_count=config.hub_partitions,
                retention_description=eventhub.RetentionDescriptionArgs(
                    cleanup_policy=eventhub.CleanupPolicyRetentionDescription.DELETE,
                    retention_time_in_hours=24 * config.hub_retention_days,
                ),
                opts=context.within(self, state=True),
            )
            for group in groups:
                eventhub.ConsumerGroup(
                    f"group-{hub}-{group}",
                    resource_group_name=context.group.name,
                    namespace_name=self.namespace.name,
                    event_hub_name=self.hubs[hub].name,
                    consumer_group_name=group,
                    opts=within,
                )
        diagnose("events", self.namespace, self.namespace.id, observability)
        if network is not None:
            network.endpoint("events", self.namespace, self.namespace.id, "namespace")
        self.register_outputs({})

    @property
    def host(self) -> pulumi.Output[str]:
        """The host name that clients connect to."""
        return pulumi.Output.concat(self.namespace.name, ".servicebus.windows.net")
