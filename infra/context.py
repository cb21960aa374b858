"""What every component of a stack is given."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_azure_native import resources

from infra.config import StackConfig
from infra.naming import Naming


@dataclass(frozen=True)
class Context:
    """The surroundings of a component.

    Attributes:
        config: Sizes and switches.
        names: Names of resources.
        group: The resource group.
        tags: Put on everything that takes tags.
    """

    config: StackConfig
    names: Naming
    group: resources.ResourceGroup
    tags: dict[str, str]

    def within(self, parent: pulumi.Resource, *, state: bool = False) -> pulumi.ResourceOptions:
        """Options of a resource inside a component; what holds state is protected where the stack locks it.

        Protection is Pulumi's own: `pulumi destroy` and a replacement stop. The lock in Azure stops everybody else.
        """
        return pulumi.ResourceOptions(parent=parent, protect=state and self.config.locks)


def component_type(name: str) -> str:
    """Return the type token of a component: it is part of every URN, so it never changes."""
    return f"tollgate:infra:{name}"
