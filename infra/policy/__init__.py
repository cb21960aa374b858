"""Policies that every resource of a stack has to meet; usable as `pulumi up --policy-pack infra/policy`."""
