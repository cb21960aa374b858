"""Tollgate in an Azure subscription: the Pulumi program, its policies, and how code gets into the apps."""
