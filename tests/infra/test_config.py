"""Configuration: every problem is named, and nothing is guessed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.app_settings import needed_secrets, plain_settings
from infra.config import (
    INGEST_MAX_INSTANCES,
    POSTGRES_SIZES,
    PROFILES,
    TIMER_CONNECTIONS,
    WORKER_CONNECTIONS,
    ConfigError,
    StackConfig,
    read_config,
)
from infra.naming import RULES, Naming
from infra.topology import APPS, OPTIONAL_SECRETS
from tests.infra.recording import IMAGE, REQUIRED

INFRA = Path(__file__).resolve().parents[2] / "infra"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"locatoin": "x"}, "locatoin is not a setting; is location meant"),
        ({"locks": "yes"}, "locks: input should be a valid boolean"),
        ({"postgresSize": "Standard_B1ms"}, "has 15 connections to give, the apps can open 364"),
        ({"postgresSize": "Standard_X"}, "postgresSize: one of"),
        ({"postgresStorageGb": "100"}, "postgresStorageGb: one of"),
        ({"postgresHighAvailability": "true"}, "not on a burstable size"),
        ({"scoreMaxInstances": "39"}, "scoreMaxInstances: input should be greater than or equal to 40"),
        ({"scoreMemoryMb": "1024"}, "scoreMemoryMb: input should be 512, 2048 or 4096"),
        ({"scoreAlwaysReady": "50"}, "scoreAlwaysReady: at most scoreMaxInstances"),
        ({"hubUnits": "4"}, "hubMaxUnits: at least hubUnits"),
        ({"budgetStart": "2026-12-02"}, "budgetStart: the first day of a month"),
        ({"subscriptionId": "mine"}, "subscriptionId: string should match pattern"),
        ({"profile": "prod", "privateNetwork": "false"}, "cannot be switched off with the profile prod"),
        ({"privateNetwork": "true", "deployerAddress": "203.0.113.7"}, "no public door to open"),
        ({"publicScoring": "false"}, "nobody could score"),
        ({"mlflow": "true", "mlflowImage": IMAGE}, "mlflow: needs privateNetwork"),
        ({"mlflow": "true", "privateNetwork": "true"}, "mlflowImage: needed"),
        ({"mlflowImage": "registry.example/mlflow:latest"}, "mlflowImage: string should match pattern"),
        ({"profile": "test"}, "profile: one of dev, prod"),
        ({"notifySmtpHost": "mail.example.com"}, "notifyMailFrom: needed with notifySmtpHost"),
        ({"notifyLinkBase": "http://drift.example.com"}, "notifyLinkBase: string should match pattern"),
    ],
)
def test_a_problem_is_named(values: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config({**REQUIRED, **values}, "dev")
    assert problem in str(caught.value)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config({"profile": "dev", "locks": "yes", "extra": "1"}, "dev")
    assert len(caught.value.problems) == 2 + len(REQUIRED)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_a_default_for_what_it_does_not_ask_for(profile: str) -> None:
    config = read_config(REQUIRED, profile)
    assert config.profile == config.environment == profile
    asked = {name for name, field in StackConfig.model_fields.items() if field.is_required()}
    assert asked == {*PROFILES[profile], "environment", "profile", *_snake(REQUIRED)}


def test_a_stack_may_have_another_name_than_its_profile() -> None:
    assert read_config({**REQUIRED, "profile": "prod"}, "live1").environment == "live1"


@pytest.mark.parametrize("stack", ["dev", "prod"])
def test_the_stack_files_hold_nothing_but_settings(stack: str) -> None:
    document = yaml.safe_load((INFRA / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    values = {name.removeprefix("tollgate:"): value for name, value in document["config"].items()}
    assert read_config({**REQUIRED, **values}, stack).profile == stack


def test_the_worst_case_of_connections_counts_every_worker() -> None:
    values = {"scoreMaxInstances": "50", "scoreWorkers": "3", "hubPartitions": "8", "postgresSize": "Standard_D2ds_v5"}
    config = read_config({**REQUIRED, **values}, "dev")
    assert config.connections_at_most == (50 + 2 * 8) * 3 * WORKER_CONNECTIONS + 2 * sum(TIMER_CONNECTIONS.values())
    assert INGEST_MAX_INSTANCES == 2 * 32
    assert all(size.connections >= 50 for size in POSTGRES_SIZES.values())


ONE = re.compile(r"(Postgres[A-Z]\w+|timed_runs|quality_check|run_records)\(\s*(?:self\.)?where,")
TWO = re.compile(r"(succession_of)\(\s*(?:self\.)?where,")
"""What opens connections in a composition root, and how many."""


@pytest.mark.parametrize("app", ["drift", "retrain"])
def test_the_connections_of_timers_are_counted(app: str) -> None:
    """Whoever gives a timer another connection finds the budget here."""
    roots = sorted((INFRA.parent / "shared" / "bootstrap").glob(f"{app}*.py"))
    text = "\n".join(root.read_text(encoding="utf-8") for root in roots)
    found = len(ONE.findall(text)) + 2 * len(TWO.findall(text))
    assert 10 < found <= TIMER_CONNECTIONS[app], ONE.findall(text) + TWO.findall(text)


@given(
    environment=st.from_regex(r"[a-z][a-z0-9]{1,7}", fullmatch=True),
    subscription=st.uuids().map(str),
)
def test_names_fit_whatever_the_stack_is_called(environment: str, subscription: str) -> None:
    names = Naming(environment, subscription)
    for purpose in (*APPS, "data"):
        assert RULES["azure-native:storage:StorageAccount"].fullmatch(names.account(purpose))
    for app in APPS:
        assert RULES["azure-native:web:WebApp"].fullmatch(names.in_azure(f"func-{app}"))
    assert RULES["azure-native:keyvault:Vault"].fullmatch(names.in_azure("kv"))
    assert RULES["azure-native:dbforpostgresql:Server"].fullmatch(names.in_azure("psql"))
    assert RULES["azure-native:eventhub:Namespace"].fullmatch(names.in_azure("evh"))
    assert names.token == Naming(environment, subscription).token
    assert names.token != Naming(environment + "x", subscription).token


def _snake(names: dict[str, str]) -> set[str]:
    return {"".join(f"_{c.lower()}" if c.isupper() else c for c in name) for name in names}


def test_notices_go_where_the_stack_says_and_secrets_stay_in_the_vault() -> None:
    mail = {"notifySmtpHost": "mail.example.com", "notifyMailFrom": "tollgate@example.com", "notifySmtpUser": "u"}
    quiet = plain_settings("drift", read_config(REQUIRED, "dev"), lambda name: f"<{name}>")
    told = plain_settings("drift", read_config({**REQUIRED, **mail}, "dev"), lambda name: f"<{name}>")
    assert {quiet[name] for name in ("NOTIFY_SMTP_HOST", "NOTIFY_MAIL_FROM", "NOTIFY_MAIL_TO")} == {""}
    assert told["NOTIFY_SMTP_HOST"] == "mail.example.com"
    assert told["NOTIFY_MAIL_TO"] == REQUIRED["alertEmail"]
    for name, secret in OPTIONAL_SECRETS.items():
        assert quiet[name] == f"@Microsoft.KeyVault(SecretUri=<{secret}>)"
    assert not set(OPTIONAL_SECRETS) & set(needed_secrets())  # nobody draws a password in their place
