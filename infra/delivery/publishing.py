"""Publishing a package to a Flex Consumption app, and seeing that it runs.

Four steps, each with its own deadline, because each can fail while the one before it succeeded:

1. the package is accepted: POST to the deployment endpoint ("one deploy"), with an Entra token, without a remote
build; 2. the deployment ends: its status is asked for until it is complete, and complete is not yet success; 3. the
functions are listed by Azure Resource Manager, exactly those of the package: a zip with wrong file modes, or an app
   that does not import, deploys "successfully" with none;
4. the app answers that it lives and that it is ready.

Source: Azure Functions, "Zip push deployment" and "Deployment technologies"; the numbers of a deployment's status are
those that Microsoft's own deployment action and the .NET SDK use. Never run against Azure here, see docs/deploy.md.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from infra.delivery.entra import MANAGEMENT
from infra.delivery.errors import DeliveryError
from infra.delivery.package import Package
from infra.delivery.requests import Answer, Clock, Deadline, send

FAILED: Final = 3
SUCCEEDED: Final = 4
RESOURCE_MANAGER: Final = "https://management.azure.com"
FUNCTIONS_API: Final = "2024-04-01"

# A role assignment needs up to some minutes to reach every part of Azure; meanwhile one is told 401 or 403.
SPREADING: Final = frozenset({401, 403})
CONFLICT: Final = 409


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each step may take, in seconds.

    Attributes:
        accept_s: Until the package is accepted: uploads of tens of megabytes and roles that still spread.
        deploy_s: Until the deployment ends.
        list_s: Until the functions are listed.
        ready_s: Until the app is ready: a cold start with a first connection to everything.
        poll_s: Between two looks.
    """

    accept_s: float = 600.0
    deploy_s: float = 900.0
    list_s: float = 300.0
    ready_s: float = 300.0
    poll_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where a package goes.

    Attributes:
        deployment_url: `https://<app>.scm.azurewebsites.net`.
        url: `https://<app>.azurewebsites.net`.
        app_id: ARM id of the app.
        resource_manager: Address of Azure Resource Manager.
    """

    deployment_url: str
    url: str
    app_id: str
    resource_manager: str = RESOURCE_MANAGER


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes and verifies.

    Attributes:
        token: Scope -> Entra token.
        patience: Deadlines.
        clock: Time.
        tell: Called with a line for people at each step.
    """

    token: Callable[[str], str]
    patience: Patience = Patience()
    clock: Clock = field(default_factory=Clock)
    tell: Callable[[str], None] = print

    def publish(self, package: Package, target: Target) -> str:
        """Bring a package to its app and return the deployment's id, once the new code is ready.

        Publishing the same package again does no harm, so a failed `pulumi up` is simply run again.

        Raises:
            DeliveryError: A step failed or took too long; later steps were not tried.
            PackageError: The zip is not the one of its manifest.
        """
        content = package.content()
        self.tell(f"{package.app}: publishing {len(content) / 2**20:.1f} MiB, sha256 {package.sha256[:12]}")
        deployment = self._push(package, content, target)
        self._await_end(package, deployment, target)
        self._await_functions(package, target)
        self._await_ready(package, target)
        self.tell(f"{package.app}: runs, {len(package.functions)} functions, ready")
        return deployment

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(MANAGEMENT)}"}

    def _push(self, package: Package, content: bytes, target: Target) -> str:
        deadline = Deadline.after(self.patience.accept_s, f"{package.app}: publishing", self.clock)
        answer = send(
            "POST",
            f"{target.deployment_url}/api/publish?RemoteBuild=false&Deployer=pulumi",
            deadline,
            headers=lambda: {**self._headers(), "Content-Type": "application/zip"},
            body=content,
            timeout_s=300.0,
            # 409: somebody else's deployment runs; it ends, and then ours is the newer one.
            also_again=SPREADING | {CONFLICT},
        )
        if answer.status not in {200, 201, 202}:
            raise DeliveryError(f"{package.app}: the package was refused: HTTP {answer.status} {answer.text()}")
        return _deployment_id(answer)

    def _await_end(self, package: Package, deployment: str, target: Target) -> None:
        deadline = Deadline.after(self.patience.deploy_s, f"{package.app}: deployment {deployment}", self.clock)
        url = f"{target.deployment_url}/api/deployments/{urllib.parse.quote(deployment, safe='')}"
        while True:
            answer = send("GET", url, deadline, headers=self._headers, also_again=SPREADING)
            state = answer.json() if answer.status in {200, 202} else None
            if isinstance(state, dict):
                if state.get("status") == SUCCEEDED:
                    return
                # Some endings are neither: a conflict, a partial success. Complete without success is a failure.
                if state.get("status") == FAILED or state.get("complete") is True:
                    reason = state.get("status_text") or state.get("message") or state.get("progress") or "no reason"
                    raise DeliveryError(f"{package.app}: deployment {deployment} failed: {reason}")
            elif answer.status not in {200, 202, 404}:
                raise DeliveryError(f"{package.app}: deployment {deployment}: HTTP {answer.status} {answer.text()}")
            # 404: the deployment was accepted by one instance and is asked of another, which does not know it yet.
            deadline.pause(self.patience.poll_s, f"HTTP {answer.status} {answer.text()}")

    def _await_functions(self, package: Package, target: Target) -> None:
        deadline = Deadline.after(self.patience.list_s, f"{package.app}: list of functions", self.clock)
        url = f"{target.resource_manager}{target.app_id}/functions?api-version={FUNCTIONS_API}"
        wanted = set(package.functions)
        while True:
            found = self._functions(package, url, deadline)
            if found == wanted:
                return
            missing, unknown = sorted(wanted - found), sorted(found - wanted)
            deadline.pause(self.patience.poll_s, f"missing {missing}, not in the package {unknown}")

    def _functions(self, package: Package, url: str, deadline: Deadline) -> set[str]:
        found: set[str] = set()
        while url:
            answer = send("GET", url, deadline, headers=self._headers)
            page = answer.json()
            if answer.status != 200 or not isinstance(page, dict):
                raise DeliveryError(f"{package.app}: list of functions: HTTP {answer.status} {answer.text()}")
            found |= {_function_name(item) for item in page.get("value", [])}
            url = page.get("nextLink") or ""
        return found

    def _await_ready(self, package: Package, target: Target) -> None:
        for route in ("live", "ready"):
            deadline = Deadline.after(self.patience.ready_s, f"{package.app}: health/{route}", self.clock)
            # No token goes here: both routes are anonymous. 401 and 404 are what an app answers that still starts.
            answer = send(
                "GET", f"{target.url}/api/health/{route}", deadline, also_again=SPREADING | {404}, timeout_s=230.0
            )
            if answer.status != 200:
                raise DeliveryError(f"{package.app}: health/{route}: HTTP {answer.status} {answer.text()}")


def _deployment_id(answer: Answer) -> str:
    """The id is the body, as a JSON string or bare; without one, the latest deployment is ours."""
    body = answer.json()
    if isinstance(body, dict):
        body = body.get("id")
    text = str(body or answer.text()).strip().strip('"')
    if text == "null":
        text = ""
    return text if text and len(text) <= 64 and text.isascii() and text.replace("-", "").isalnum() else "latest"


def _function_name(item: Any) -> str:
    """Azure Resource Manager calls a function `<app>/<function>`."""
    return str(item.get("properties", {}).get("name") or item.get("name", "")).rsplit("/", 1)[-1]
