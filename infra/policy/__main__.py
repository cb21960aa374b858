"""What the engine runs for `--policy-pack infra/policy`."""

from pulumi_policy import EnforcementLevel, PolicyPack

from infra.policy.rules import RESOURCE_POLICIES, STACK_POLICIES

PolicyPack(
    name="tollgate",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[*RESOURCE_POLICIES, *STACK_POLICIES],
)
