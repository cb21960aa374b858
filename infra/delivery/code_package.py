"""The resource that stands for "this package runs in this app"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult

from infra.app_settings import ROOT
from infra.delivery import entra
from infra.delivery.package import Package
from infra.delivery.publishing import Publisher, Target

_INPUTS = ("app", "file", "sha256", "functions", "version", "deployment_url", "url", "app_id")


class CodePackageProvider(ResourceProvider):
    """Publishes on creation and when the package or its app changed. Deleting it leaves the app as it is."""

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Publish."""
        return CreateResult(id_=f"{props['app']}-package", outs=self._publish(props))

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Publish the new package."""
        return UpdateResult(outs=self._publish(_news))

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Another digest or another app needs publishing; where the zip lies on this machine does not."""
        changed = [name for name in ("sha256", "deployment_url", "app_id") if _olds.get(name) != _news.get(name)]
        # Another app is another resource to publish to, and its creation is an update of this one: never a replacement,
        # which would "delete" the old one afterwards.
        return DiffResult(changes=bool(changed), replaces=[], stables=["app"], delete_before_replace=False)

    def _publish(self, props: dict[str, Any]) -> dict[str, Any]:
        package = Package(
            app=props["app"],
            path=ROOT / props["file"],
            sha256=props["sha256"],
            functions=tuple(props["functions"]),
            version=props["version"],
        )
        publisher = Publisher(token=entra.token, tell=pulumi.log.info)
        deployment = publisher.publish(package, Target(props["deployment_url"], props["url"], props["app_id"]))
        return {**{name: props[name] for name in _INPUTS}, "deployment": deployment}


class CodePackage(Resource):
    """The package of one app, published and seen to be ready."""

    def __init__(
        self,
        name: str,
        *,
        package: Package,
        deployment_url: pulumi.Input[str],
        url: pulumi.Input[str],
        app_id: pulumi.Input[str],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        super().__init__(
            CodePackageProvider(),
            name,
            {
                "app": package.app,
                "file": _seen_from_checkout(package.path),
                "sha256": package.sha256,
                "functions": list(package.functions),
                "version": package.version,
                "deployment_url": deployment_url,
                "url": url,
                "app_id": app_id,
            },
            opts,
        )


def _seen_from_checkout(path: Path) -> str:
    """The state is shared by machines, so it holds no absolute path where one can be avoided."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
