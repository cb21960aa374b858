"""The configuration as Pulumi holds it."""

from __future__ import annotations

from pulumi.runtime.config import CONFIG, get_config_env


def values_of(project: str) -> dict[str, str]:
    """Return every value of a project's namespace, by its name without the prefix.

    `pulumi.Config` can only be asked for names one knows, and so could never say that a name is misspelt.
    """
    prefix = f"{project}:"
    everything = {**get_config_env(), **CONFIG.get()}
    return {key.removeprefix(prefix): str(value) for key, value in everything.items() if key.startswith(prefix)}
