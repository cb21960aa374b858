# ruff: noqa: E501 - one mistake per line reads as a table
"""Mistakes that people make, planted one at a time: each has to be caught by a check that needs no cloud."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.infra import checks
from tests.infra.recording import IMAGE, REQUIRED, run

ROOT = checks.ROOT


@dataclass(frozen=True)
class Mistake:
    """One edit of one file.

    Attributes:
        what: In words.
        file: Seen from the checkout.
        old: What stands there; it has to occur.
        new: What a mistake makes of it.
        by: The check that is expected to catch it, `program` where the program itself stops.
        stack: Which profile it shows in.
        switches: What has to be switched on for it to show.
    """

    what: str
    file: str
    old: str
    new: str
    by: str
    stack: str = "dev"
    switches: Mapping[str, str] = field(default_factory=dict)


C = "infra/components"
REGISTRY = {"mlflow": "true", "mlflowImage": IMAGE}
MISTAKES = [
    Mistake("misspelt property of a resource", f"{C}/storage.py", "allow_shared_key_access=", "allow_shared_keys=", "program"),
    Mistake("misspelt property of a nested object", f"{C}/event_hubs.py", "capacity=config", "capcity=config", "program"),
    Mistake("misspelt key in a plain mapping", f"{C}/postgres.py", "sku=dbforpostgresql.SkuArgs(name=config.postgres_size, tier=size.tier)", 'sku={"name": config.postgres_size, "teir": size.tier}', "schema"),
    Mistake("value that is no member of an enum", f"{C}/storage.py", "access_tier=storage.AccessTier.HOT", 'access_tier="Warm"', "schema"),
    Mistake("text where a switch belongs", f"{C}/function_app.py", "https_only=True", 'https_only="yes"', "schema"),
    Mistake("required property left out", f"{C}/observability.py", "category=consumption.CategoryType.COST,", "", "program"),
    Mistake("shared keys of storage allowed", f"{C}/storage.py", "allow_shared_key_access=False", "allow_shared_key_access=True", "policies"),
    Mistake("anonymous reading of blobs", f"{C}/storage.py", "public_access=storage.PublicAccess.NONE", "public_access=storage.PublicAccess.BLOB", "policies"),
    Mistake("an old TLS version", f"{C}/event_hubs.py", "TLS_VERSION_1_2", "TLS_VERSION_1_0", "policies"),
    Mistake("keys of Event Hubs left on", f"{C}/event_hubs.py", "disable_local_auth=True,", "", "policies"),
    Mistake("password login to Postgres", f"{C}/postgres.py", 'password_auth="Disabled"', 'password_auth="Enabled"', "policies"),
    Mistake("database open to the internet", f"{C}/postgres.py", "end_ip_address=address", 'end_ip_address="255.255.255.255"', "policies"),
    Mistake("public network of a production database", f"{C}/postgres.py", '"Disabled" if network is not None else "Enabled"', '"Enabled"', "policies", "prod"),
    Mistake("vault that can be purged", f"{C}/vault.py", "enable_purge_protection=True,", "", "policies"),
    Mistake("HTTP without TLS", f"{C}/function_app.py", "https_only=True", "https_only=False", "policies"),
    Mistake("login with a password for deployments", f"{C}/function_app.py", "allow=False", "allow=True", "policies"),
    Mistake("package fetched with a connection string", f"{C}/function_app.py", "type=web.AuthenticationType.USER_ASSIGNED_IDENTITY", "type=web.AuthenticationType.STORAGE_ACCOUNT_CONNECTION_STRING", "policies"),
    Mistake("Owner instead of a data role", "infra/roles.py", 'BLOB_CONTRIBUTOR = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"', 'BLOB_CONTRIBUTOR = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"', "policies"),
    Mistake("role on the whole account instead of a container", "infra/stack.py", '{f"container:{name}": container.id for', '{f"container:{name}": data.account.id for', "access table"),
    Mistake("sender and receiver swapped", "infra/roles.py", 'Grant(app, Role.HUB_SENDER, f"hub:{hub}")', 'Grant(app, Role.HUB_RECEIVER, f"hub:{hub}")', "access table"),
    Mistake("reader may write models", "infra/topology.py", '"models": Container(writers=("retrain",))', '"models": Container(writers=("retrain", "score"))', "access table"),
    Mistake("an app without its role on telemetry", "infra/roles.py", 'rows += [Grant(app, Role.METRICS_PUBLISHER, "insights") for app in APPS]', "", "access table"),
    Mistake("kind of principal left to the SDK", f"{C}/access.py", "else authorization.PrincipalType.SERVICE_PRINCIPAL", "else authorization.PrincipalType.USER", "policies"),
    Mistake("role id with a digit wrong", "infra/roles.py", "a638d3c7-ab3a-418d-83e6-5f17a39d4fde", "a638d3c7-ab3a-418d-83e6-5f17a39d4fdf", "access table"),
    Mistake("identity without its client id", "infra/stack.py", '"credential": "managedidentity", "clientId": client_id', '"credential": "managedidentity"', "app settings"),
    Mistake("setting that no app reads", "infra/stack.py", "values[authentication] =", 'values["LOG_LEVLE"] = "INFO"\n    values[authentication] =', "app settings"),
    Mistake("setting that is lost", "infra/app_settings.py", 'if name == "LOG_LEVEL":\n        return config.log_level', 'if name == "LOG_LEVEL":\n        return None', "app settings"),
    Mistake("all apps on one host account", "infra/stack.py", '"AzureWebJobsStorage": {"accountName": host.account.name}', '"AzureWebJobsStorage": {"accountName": data.account.name}', "app settings"),
    Mistake("secret in plain text", "infra/app_settings.py", 'return f"@Microsoft.KeyVault(SecretUri={secret_uri(SECRETS[name])})"', 'return "k1:" + "A" * 44', "app settings"),
    Mistake("key of an account in a setting", "infra/stack.py", '{"accountName": data.account.name}', '{"accountName": data.account.name, "key": "AccountKey=abc"}', "app settings"),
    Mistake("an Output in an f-string", f"{C}/function_app.py", "value=pulumi.Output.concat(host_storage.account.primary_endpoints.blob, packages.name)", 'value=f"{host_storage.account.primary_endpoints.blob}{packages.name}"', "secrecy"),
    Mistake("misspelt output property", f"{C}/function_app.py", "primary_endpoints.blob,", "primary_endpoints.blobb,", "program"),
    Mistake("package in the wrong container", f"{C}/function_app.py", "packages.name)", '"models")', "facts"),
    Mistake("another version of Python", f"{C}/function_app.py", 'PYTHON: Final = "3.13"', 'PYTHON: Final = "3.12"', "facts"),
    Mistake("HTTP concurrency forgotten", f"{C}/function_app.py", "per_instance_concurrency=size.http_concurrency", "", "facts"),
    Mistake("no immutability of the seals", "infra/topology.py", '"seals": Container(writers=("drift",), immutable=True)', '"seals": Container(writers=("drift",))', "facts"),
    Mistake("models that expire", "infra/topology.py", '"models": Container(writers=("retrain",))', '"models": Container(writers=("retrain",), days=30)', "facts"),
    Mistake("consumer group forgotten", "infra/topology.py", '"decisions": ("subscriber",),\n}', '"decisions": (),\n}', "facts"),
    Mistake("code before the schema", "infra/stack.py", "depends_on=[schema, *access.of(app), ", "depends_on=[*access.of(app), ", "order"),
    Mistake("app before its roles", "infra/stack.py", "depends_on=[*access.of(app), *keys, *doors, postgres.database]", "depends_on=[postgres.database]", "order"),
    Mistake("schema before the administrators", "infra/stack.py", "depends_on=[*postgres.ready, *doors]", "depends_on=[*doors]", "order"),
    Mistake("schema before its private endpoint", "infra/stack.py", "depends_on=[*postgres.ready, *doors]", "depends_on=[*postgres.ready]", "order", "prod"),
    Mistake("an output is lost", "infra/stack.py", '"scoreEndpoint": apps', '"endpoint": apps', "outputs"),
    Mistake("the deployment address as endpoint", "infra/stack.py", 'apps["score"].url.apply', 'apps["score"].deployment_url.apply', "outputs"),
    Mistake("account name that is too long", "infra/naming.py", 'return f"st{purpose}{self.environment}{self.token}"', 'return f"st{purpose}{self.environment}{self.token}storage01"', "names"),
    Mistake("two resources with one name", f"{C}/function_app.py", 'self.login = context.names.within_group(f"id-{app}")', 'self.login = context.names.within_group("id-app")', "names"),
    Mistake("two resources with one Pulumi name", f"{C}/function_app.py", 'f"plan-{name}",\n', '"plan",\n', "names"),
    Mistake("logs of a service go nowhere", f"{C}/vault.py", 'diagnose("vault", self.vault, self.vault.id, observability)', "", "policies"),
    Mistake("tags forgotten", f"{C}/event_hubs.py", "tags=context.tags,", "", "policies"),
    Mistake("webhook with its key in plain text", f"{C}/observability.py", "email_address=config.alert_email", 'email_address="https://hooks.slack.com/services/T0/B0/x"', "policies"),
    Mistake("misspelt column in a query", "monitoring/azure/alerts.json", "AppRoleName", "AppRolName", "queries"),
    Mistake("misspelt function in a query", "monitoring/azure/alerts.json", "percentilew", "percentil", "queries"),
    Mistake("an alert that is lost", "monitoring/azure/alerts.json", '"name": "no-champion"', '"name": "champion"', "facts"),
    Mistake("a dashboard on nothing", f"{C}/monitoring.py", "text.replace(WORKSPACE, workspace)", "text", "facts"),
    Mistake("alert that reaches nobody", f"{C}/monitoring.py", "actions=monitor.ActionsArgs(action_groups=[observability.action_group.id]),", "", "facts"),
    Mistake("audit extension not loaded", f"{C}/postgres.py", '"pg_stat_statements,pgaudit"', '"pg_stat_statements"', "policies"),
    Mistake("no private endpoint for the vault", f"{C}/vault.py", 'network.endpoint("vault", self.vault, self.vault.id, "vault")', "pass", "facts", "prod"),
    Mistake("subnet without its delegation", f"{C}/network.py", "if delegated else None", "if False else None", "facts", "prod"),
    Mistake("registry without an entry in the zones", f"{C}/mlflow.py", 'network.domain("registry", environment, environment.default_domain, environment.static_ip)', "pass", "facts", "prod", REGISTRY),
    Mistake("entry for the domain and none below it", f"{C}/network.py", '{"all": "*", "apex": "@"}', '{"apex": "@"}', "facts", "prod", REGISTRY),
    Mistake("zone that its network does not ask", f"{C}/network.py", "virtual_network=privatedns.SubResourceArgs(id=self._vnet.id)", 'virtual_network=privatedns.SubResourceArgs(id="/vnet")', "facts", "prod", REGISTRY),
    Mistake("registry with a public address", f"{C}/mlflow.py", "internal=True", "internal=False", "facts", "prod", REGISTRY),
    Mistake("code before the registry is found", f"{C}/network.py", "self.doors += [", "_ = [", "order", "prod", REGISTRY),
    Mistake("no lock on the database", "infra/stack.py", '"postgres": postgres.server.id,', "", "facts", "prod"),
    Mistake("required configuration without a default", "infra/config.py", '"budget_usd": 100,', "", "program"),
]  # fmt: skip


class _Mutant(importlib.abc.MetaPathFinder):
    """Finds one module with another source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self._name, self._path, self._source = name, path, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=_Source(self._path, self._source))


class _Source(importlib.abc.SourceLoader):
    def __init__(self, path: Path, source: str) -> None:
        self._path, self._source = path, source

    def get_filename(self, _fullname: str) -> str:
        return str(self._path)

    def get_data(self, _path: Any) -> bytes:
        return self._source.encode()


@contextmanager
def planted(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program with a mistake in it: fresh modules, one of them from another source; undone afterwards."""
    path = ROOT / mistake.file
    text = path.read_text(encoding="utf-8")
    assert mistake.old in text, f"{mistake.file} has changed: {mistake.old!r} is not in it"
    source = text.replace(mistake.old, mistake.new)
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "infra"}
    for name in before:
        del sys.modules[name]
    finder = _Mutant(mistake.file.removesuffix(".py").replace("/", "."), path, source)
    sys.meta_path.insert(0, finder)
    read_text = Path.read_text

    def read(self: Path, *args: Any, **options: Any) -> str:
        return source if self == path else read_text(self, *args, **options)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", read)
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == "infra"]:
            del sys.modules[name]
        sys.modules.update(before)


def caught(mistake: Mistake, packages: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Check -> the first thing it says."""
    with planted(mistake, monkeypatch):
        values = {**REQUIRED, **mistake.switches, "packagesFolder": str(packages)}
        try:
            config, stack = importlib.import_module("infra.config"), importlib.import_module("infra.stack")
            recording = run(lambda: stack.build(config.read_config(values, mistake.stack)).outputs, stack=mistake.stack)
        except Exception as error:  # noqa: BLE001 - whatever stops the program is a catch
            return {"program": f"{type(error).__name__}: {str(error).splitlines()[-1]}"}
    found: dict[str, str] = {}
    for finding in checks.everything(recording, {**mistake.switches, "stack": mistake.stack}):
        found.setdefault(finding.check, finding.text)
    return found


def test_there_are_enough_mistakes_and_each_is_another() -> None:
    assert len(MISTAKES) >= 25
    assert len({(m.file, m.old, m.new) for m in MISTAKES}) == len(MISTAKES) == len({m.what for m in MISTAKES})


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.what.replace(" ", "-"))
def test_a_planted_mistake_is_caught(
    mistake: Mistake, packages: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    found = caught(mistake, packages, monkeypatch)
    record_property("caught", found)
    assert mistake.by in found, f"{mistake.what}: caught only by {found or 'nothing'}"


def test_the_program_without_a_mistake_is_clean(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: an edit that changes nothing is not called a mistake."""
    nothing = Mistake("nothing", f"{C}/vault.py", "enable_soft_delete=True", "enable_soft_delete=True", "program")
    assert caught(nothing, packages, monkeypatch) == {}
