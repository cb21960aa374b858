"""Role assignments, from the table in `infra.roles`; and locks on what holds state."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi
from pulumi_azure_native import authorization

from infra.context import Context, component_type
from infra.roles import OPERATORS, Grant


class Access(pulumi.ComponentResource):
    """The role assignments of a stack.

    Attributes:
        assignments: By row.
    """

    assignments: dict[Grant, authorization.RoleAssignment]

    def __init__(
        self,
        name: str,
        context: Context,
        *,
        grants: tuple[Grant, ...],
        principals: Mapping[str, pulumi.Input[str]],
        scopes: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Make them.

        Args:
            name: Of the component.
            context: The surroundings.
            grants: The table.
            principals: Principal of the table -> object id.
            scopes: Scope of the table -> ARM id.
            opts: Pulumi's own.
        """
        super().__init__(component_type("Access"), name, None, opts)
        definitions = (
            f"/subscriptions/{context.config.subscription_id}/providers/Microsoft.Authorization/roleDefinitions"
        )
        self.assignments = {
            grant: authorization.RoleAssignment(
                f"{grant.principal}-{grant.role.name.lower().replace('_', '-')}-{grant.scope.replace(':', '-')}",
                role_assignment_name=context.names.assignment(grant.principal, grant.role, grant.scope),
                scope=scopes[grant.scope],
                principal_id=principals[grant.principal],
                # Stated always: the SDK would send User, and Azure then does not find a principal made a second ago.
                principal_type=(
                    authorization.PrincipalType.GROUP
                    if grant.principal == OPERATORS
                    else authorization.PrincipalType.SERVICE_PRINCIPAL
                ),
                role_definition_id=f"{definitions}/{grant.role.value}",
                opts=context.within(self),
            )
            for grant in grants
        }
        self.register_outputs({})

    def of(self, principal: str) -> list[pulumi.Resource]:
        """Return the assignments of one principal; what acts as it waits for them."""
        return [assignment for grant, assignment in self.assignments.items() if grant.principal == principal]


class Locks(pulumi.ComponentResource):
    """Delete locks in Azure, for everybody with any tool."""

    def __init__(
        self,
        name: str,
        context: Context,
        resources: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(component_type("Locks"), name, None, opts)
        for resource, resource_id in resources.items():
            authorization.ManagementLockByScope(
                f"lock-{resource}",
                scope=resource_id,
                level=authorization.LockLevel.CAN_NOT_DELETE,
                lock_name="state",
                notes="Holds state of Tollgate. docs/deploy.md says how a stack is torn down.",
                opts=context.within(self),
            )
        self.register_outputs({})
