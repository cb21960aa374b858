from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest

from shared import telemetry
from shared.adapters.connections import ConnectionSettingError
from shared.bootstrap.drift import build_drift_app
from shared.bootstrap.ingest import build_ingest_app
from shared.bootstrap.retrain import build_retrain_app
from shared.bootstrap.score import build_score_app
from shared.domain.cost_policy import Capacity, CostPolicy, Costs
from shared.domain.decision import Policy
from shared.domain.policy_choice import Origin, PolicyRule
from shared.settings import (
    AppSettings,
    DriftSettings,
    IngestSettings,
    RetrainSettings,
    ScoreSettings,
    SettingsError,
)
from twin.services.app_settings import EXAMPLE_SURROGATE_KEYS, surrogate_keys, with_keys
from twin.services.settings import APPS, TwinSettings
from twin.services.settings import SettingsError as TwinSettingsError

CLASSES: dict[str, type[AppSettings]] = {
    "score": ScoreSettings,
    "ingest": IngestSettings,
    "drift": DriftSettings,
    "retrain": RetrainSettings,
}
BUILDERS = {
    "score": build_score_app,
    "ingest": build_ingest_app,
    "drift": build_drift_app,
    "retrain": build_retrain_app,
}


def good(app: str) -> dict[str, str]:
    return with_keys(app, TwinSettings())


@pytest.mark.parametrize("app", APPS)
def test_the_twin_sets_exactly_what_an_app_reads(app: str) -> None:
    assert set(good(app)) == CLASSES[app].names()


@pytest.mark.parametrize("app", APPS)
def test_every_setting_is_described(app: str) -> None:
    assert all(field.description for field in CLASSES[app].model_fields.values())


@pytest.mark.parametrize("app", APPS)
def test_every_setting_is_in_the_operations_page(app: str) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
    assert not [name for name in CLASSES[app].names() - {"FUNCTIONS_WORKER_RUNTIME"} if f"`{name}`" not in page]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"REVIEW_THRESHOLD": "0.9"}, "REVIEW_THRESHOLD must not be greater than FRAUD_THRESHOLD"),
        ({"FRAUD_THRESHOLD": "1.1"}, "FRAUD_THRESHOLD: input should be less than or equal to 1"),
        ({"SURROGATE_KEYS": "k1:c2hvcnQ="}, "secret must have at least 32 bytes; it has 5"),
        ({"SURROGATE_KEYS": "very secret"}, "SURROGATE_KEYS must be <id>:<base64> with commas, the current key first"),
        ({"REVIEW_COST_MINOR": "0"}, "REVIEW_COST_MINOR: input should be greater than or equal to 1"),
        ({"REVIEWS_PER_DAY": "-1"}, "REVIEWS_PER_DAY: input should be greater than or equal to 0"),
        ({"THRESHOLDS_FROM": "model"}, "THRESHOLDS_FROM: input should be 'settings' or 'bundle'"),
        ({"POLICY": "fixed-v2"}, "POLICY: input should be 'fixed-v1' or 'expected-loss-v1'"),
        ({"CURRENCY": "euro"}, "CURRENCY: string should match pattern '^[A-Z]{3}$'"),
        ({"QUEUE_LIMIT": "10"}, "QUEUE_LIMIT must not be less than BATCH_LIMIT"),
    ],
)
def test_what_cannot_decide_is_refused_without_telling_a_secret(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        ScoreSettings.read({**good("score"), **changes})
    assert caught.value.problems == [problem]
    assert "very secret" not in str(caught.value)


def test_the_policy_is_the_one_that_is_named_with_its_own_parameters() -> None:
    assert ScoreSettings.read(good("score")).policy == Policy(0.3, 0.8)
    costs = {
        "POLICY": "expected-loss-v1",
        "REVIEW_COST_MINOR": "700",
        "DECLINE_MARGIN_BP": "150",
        "GOODWILL_COST_MINOR": "900",
        "POLICY_DECLINES": "false",
        "REVIEW_SHADOW_PRICE_MINOR": "42",
    }
    assert ScoreSettings.read({**good("score"), **costs}).policy == CostPolicy(Costs(700, 150, 900, declines=False), 42)


def test_who_weighs_costs_gets_the_same_capacity() -> None:
    costs = {"REVIEW_COST_MINOR": "700", "REVIEWS_PER_DAY": "50"}
    asked = Capacity(50, Costs(review_minor=700))
    for app, kind in (("score", ScoreSettings), ("ingest", IngestSettings), ("retrain", RetrainSettings)):
        assert kind.read(good(app)).capacity is None
        assert kind.read({**good(app), **costs}).capacity == asked
    rule = ScoreSettings.read({**good("score"), **costs, "POLICY": "expected-loss-v1"}).policy_rule
    assert rule == PolicyRule(CostPolicy(asked.costs), asked)
    fixed = ScoreSettings.read({**good("score"), "THRESHOLDS_FROM": "bundle"}).policy_rule
    assert fixed == PolicyRule(Policy(0.3, 0.8), None, Origin.BUNDLE)


def test_keys_are_read_in_their_order_and_never_shown() -> None:
    keys = ",".join(f"{name}:{base64.b64encode(name.encode() * 16).decode()}" for name in ("k3", "k2"))
    settings = ScoreSettings.read({**good("score"), "SURROGATE_KEYS": keys})
    ring = settings.key_ring
    assert (ring.current.key_id, [key.key_id for key in ring.retired]) == ("k3", ["k2"])
    assert keys.partition(":")[2] not in repr(settings)


def test_a_twin_draws_its_own_keys_once(tmp_path: Path) -> None:
    settings = TwinSettings.read({"TOLLGATE_HOME": str(tmp_path)})
    drawn = surrogate_keys(settings)
    assert drawn == surrogate_keys(settings) != EXAMPLE_SURROGATE_KEYS
    assert (tmp_path / "apps" / "surrogate_keys").stat().st_mode & 0o077 == 0
    ScoreSettings.read(with_keys("score", settings, drawn))


@pytest.mark.parametrize("app", APPS)
def test_every_app_is_built_without_connecting(app: str) -> None:
    BUILDERS[app]({**good(app), "PATH": "/bin", "WEBSITE_HOSTNAME": "x"})


def test_all_problems_are_named_at_once() -> None:
    settings = good("ingest")
    del settings["TRANSACTIONS_HUB"], settings["EVENT_HUBS"]
    settings |= {"LOG_LEVEL": "LOUD", "FUNCTIONS_WORKER_PROCESS_COUNT": "0", "PROBE_CONTAINER": "typo"}
    with pytest.raises(SettingsError) as caught:
        IngestSettings.read(settings)
    text = "\n".join(caught.value.problems)
    assert "TRANSACTIONS_HUB: field required" in text
    assert "EVENT_HUBS or EVENT_HUBS__<property> must be set" in text
    assert "LOG_LEVEL: input should be 'DEBUG'" in text
    assert "FUNCTIONS_WORKER_PROCESS_COUNT: input should be greater than or equal to 1" in text
    assert "PROBE_CONTAINER is not a setting; is PROBES_CONTAINER meant?" in text
    assert len(caught.value.problems) == 5


def test_an_identity_based_connection_is_enough() -> None:
    settings = good("score")
    del settings["DATA_STORAGE"]
    settings["DATA_STORAGE__accountName"] = "tollgatedata"
    assert ScoreSettings.read(settings).probes_container == "probes"


def test_two_forms_of_one_connection_are_refused() -> None:
    with pytest.raises(ConnectionSettingError, match="not both"):
        build_score_app({**good("score"), "DATA_STORAGE__accountName": "tollgatedata"})


def test_configure_quietens_the_sdks_and_sets_our_level() -> None:
    telemetry.configure("DEBUG")
    try:
        assert logging.getLogger("shared").level == logging.DEBUG
        assert logging.getLogger("azure.identity").level == logging.WARNING
    finally:
        logging.getLogger("shared").setLevel(logging.NOTSET)


def test_log_fields_come_from_the_context_and_the_call() -> None:
    assert telemetry.with_fields("plain") == "plain"
    with telemetry.log_context(invocation_id="i-1"), telemetry.log_context(hub="h"):
        assert telemetry.with_fields("done", events=2) == 'done {"invocation_id":"i-1","hub":"h","events":2}'
    assert telemetry.with_fields("done", at=Path("x")) == 'done {"at":"x"}'


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"TWIN_PORT_SCORE": "0"}, "TWIN_PORT_SCORE"),
        ({"TWIN_PORT_SCORE": "http"}, "TWIN_PORT_SCORE"),
        ({"TWIN_PORT_SCORE": "7072"}, "TWIN_PORT_INGEST and TWIN_PORT_SCORE are both 7072"),
        ({"TWIN_PORT_SCOER": "1"}, "TWIN_PORT_SCOER is not a setting of the twin"),
    ],
)
def test_the_twins_own_settings_are_checked(environment: dict[str, str], problem: str) -> None:
    with pytest.raises(TwinSettingsError, match=problem):
        TwinSettings.read(environment)


def test_a_misspelt_setting_is_refused_even_if_nothing_else_is_wrong() -> None:
    with pytest.raises(SettingsError) as caught:
        ScoreSettings.read({**good("score"), "LOG_LEVELS": "INFO"})
    assert caught.value.problems == ["LOG_LEVELS is not a setting; is LOG_LEVEL meant?"]
