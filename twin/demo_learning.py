"""`tollgate demo --learning`: fraud changes, a bad retraining is refused, a good one is tried, promoted, rolled back.

On a fresh twin: months of a simulated bank, in which a new kind of fraud begins half-way. The model that decides was
trained before it. Somebody asks for a retraining, with a window of two days: the gate refuses what comes of it and says
why. The window is mended and a retraining asked for again: its model passes, scores in shadow, and becomes champion. A
command rolls it back. Three times payments are decided, by whoever is champion; in the end every decision of every
epoch is replayed bit for bit. Timers are fired by hand where waiting for their minute would only take time.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

import psycopg
from azure.storage.blob import BlobServiceClient
from rich.console import Console

from shared.adapters.blob_bundles import BlobBundles
from shared.domain.bundle_pointer import Role
from shared.domain.feature_view import CARD_V1
from shared.domain.training_model import TrainingParameters
from simulator.changes import Change, NewPattern, Span
from simulator.wire import Sending, WireEvent
from twin import demo_play as play
from twin.demo_scene import Scene, Shape
from twin.services.app_settings import write_own_settings
from twin.services.orchestra import TwinError
from twin.services.settings import REPOSITORY, TwinSettings

HISTORY_DAYS: Final = 200
LIVE_DAYS: Final = 6
PATTERN_DAY: Final = 75
"""When the new fraud begins: late enough that an older model knows nothing of it, early enough to be learnt."""

OLDER_DAY: Final = 105
"""The first champion was trained on what was known then; verdicts are mature after 30 days, so it knows none of it."""

SHAPE_CUSTOMERS: Final = 500
PER_DAY: Final = 1.0
FRAUD_RATE: Final = 0.06
"""Ten times the usual, so that a small bank has enough frauds for every statistic of the gate."""

PATTERN_SHARE: Final = 1.0

GATE: Final = {"MIN_RECALL": "0.4", "MIN_PRECISION": "0.6"}
"""Floors that this world allows for; all else of the gate is as always."""

USUAL: Final = {
    **GATE,
    "COOLDOWN_H": "0",
    "MIN_NEW_TRANSACTIONS": "0",
    "TRAIN_DAYS": "60",
    "CALIBRATION_DAYS": "28",
    "SEARCH_TRIALS": "1",
    "TRIAL_H": "0.001",
    "TRIAL_ROWS": "100",
}
BAD: Final = {**USUAL, "TRAIN_DAYS": "2"}
"""What somebody set in haste: a training that sees two days."""

_RUN_S: Final = 180
_SHADOW_S: Final = 90
_SWAP_S: Final = 60
_END_S: Final = 60
_TOOK_OVER: Final = re.compile(r"\[worker-(?:\d+\.)?(\d+)\] .*: a bundle took over role=champion bundle_digest=(\w+)")


def scene(seed: int, now_us: int) -> Scene:
    """The world, with its new fraud."""
    shape = Shape(HISTORY_DAYS, LIVE_DAYS, SHAPE_CUSTOMERS, PER_DAY, FRAUD_RATE, _changes)
    return Scene(seed, now_us, 1.0, shape)


def _changes(first_day: date) -> tuple[Change, ...]:
    return (NewPattern(Span(first_day + timedelta(days=PATTERN_DAY)), PATTERN_SHARE),)


def prepare(settings: TwinSettings, retrain: Mapping[str, str] = BAD) -> None:
    """Give the twin's apps what this demo needs."""
    age = {"EVENT_MAX_AGE_DAYS": str(LIVE_DAYS + 3)}
    write_own_settings({"score": age, "ingest": age, "retrain": dict(retrain)}, settings)


def first_champion(settings: TwinSettings, world: Scene, out: Console) -> str:
    """Train on what was known before the new fraud, keep the bundle, and accept it by command; returns its digest."""
    from shared.adapters.onnx_scorer import OnnxGraph  # noqa: PLC0415 - with the next, a second that nobody else pays
    from shared.adapters.xgboost_trainer import XgboostTrainer  # noqa: PLC0415
    from shared.services.training import train  # noqa: PLC0415

    began = time.monotonic()
    given = world.training(OLDER_DAY)
    made = train(
        CARD_V1,
        given.transactions,
        given.labels,
        given.plan,
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="card-fraud",
        version=1,
        parameters=TrainingParameters(n_trees=60),
    )
    with BlobServiceClient.from_connection_string(settings.storage_connection()) as service:
        BlobBundles(service.get_container_client("models")).put(made.files)
    command(settings, "promote", made.digest[:12], "--accept", "first model of this bank")
    out.print(
        f"  card-fraud 1 in {time.monotonic() - began:.0f} s, trained on what was known on day {OLDER_DAY}:"
        f" AP {made.test.average_precision:.3f} on its test days; accepted as first champion"
    )
    return made.digest


def learn(
    settings: TwinSettings, world: Scene, first: str, restart: Callable[[], None], out: Console
) -> dict[str, Any]:
    """Play the loop.

    Args:
        settings: The twin's, whose first champion decides.
        world: What is played.
        first: Digest of that champion.
        restart: Brings the twin up again, so that apps take settings that were written for them.
        out: Where to tell.

    Returns:
        What was seen, for the report.

    Raises:
        TwinError: Something did not come to its end in time.
    """
    parts = epochs(world)
    report: dict[str, Any] = {"epochs": []}

    out.rule("4. The first champion decides", align="left")
    _decide(settings, parts[0], first, report, out)

    out.rule("5. A retraining that saw two days", align="left")
    document = _retrained(settings, 1)
    refused = [check for check in document["checks"] if not check["passed"]]
    out.print(f"  refused by {len(refused)} of {len(document['checks'])} checks:")
    for check in refused:
        out.print(f"    {check['name']}: {check['why']}", markup=False, soft_wrap=True)
    if champion_of(settings) != first:
        raise TwinError("the champion changed although the gate refused")
    report["refused"] = {check["name"]: check["why"] for check in refused}

    out.rule("6. A retraining with the usual window", align="left")
    prepare(settings, USUAL)
    restart()
    document = _retrained(settings, 2)
    missed = [f"{check['name']}: {check['why']}" for check in document["checks"] if not check["passed"]]
    if missed:
        raise TwinError(f"the good retraining was refused: {'; '.join(missed)}")
    for name in ("gain", "recall floor", "precision floor", "calibration slope"):
        check = next(check for check in document["checks"] if check["name"] == name)
        out.print(f"    {name}: {check['why']}", markup=False, soft_wrap=True)
    out.print(f"  all {len(document['checks'])} checks passed; it scores in shadow what the champion decides")
    play.fire_timer(settings.retrain, "score_shadows")
    shadowed = "SELECT count(*) FROM tollgate.shadow_scores"
    play.until(lambda: play.number(settings, shadowed) >= len(parts[0]), "its scores in shadow", _SHADOW_S)
    play.fire_timer(settings.retrain, "answer_triggers")
    play.until(lambda: champion_of(settings) != first, "its promotion", _SHADOW_S)
    second = champion_of(settings)
    out.print(f"  {play.number(settings, shadowed):,} scores in shadow, then promoted: {second[:12]}")
    _decide(settings, parts[1], second, report, out)

    out.rule("7. Rolled back by command", align="left")
    out.print("  " + command(settings, "models", "rollback", "--reason", "shown in the demo").strip(), soft_wrap=True)
    _decide(settings, parts[2], first, report, out)
    changes = [json.loads(line) for line in command(settings, "models", "history", "--json").splitlines()]
    for change in changes:
        out.print(f"  {change['role']}: {change['action']}, {change['reason']}", markup=False, soft_wrap=True)
    report["changes"] = [{"role": change["role"], "action": change["action"]} for change in changes]
    report["champions"] = [first, second]
    return report


def epochs(world: Scene) -> list[list[WireEvent]]:
    """The good events of the live days, in three parts by time."""
    events = [
        event for chapter in world.live() for event in chapter.events if event.sending in {Sending.GOOD, Sending.LATE}
    ]
    third = len(events) // 3
    return [events[:third], events[third : 2 * third], events[2 * third :]]


def _decide(
    settings: TwinSettings, events: Sequence[WireEvent], champion: str, report: dict[str, Any], out: Console
) -> None:
    """Have events decided once all processes decide with this champion."""
    both = ("score", "ingest")
    play.until(
        lambda: all(_deciding(settings, app) == {champion} for app in both), "the champion in all processes", _SWAP_S
    )
    before = play.effects(settings).decided
    play.send_to_hub(settings, "transactions", [(event.customer, event.body) for event in events], lambda _: None)
    play.until_effects(settings, lambda now: now.decided >= before + len(events), lambda _: None)
    by = {
        str(digest): int(count)
        for digest, count in play.rows(
            settings, "SELECT bundle_digest, count(*) FROM tollgate.predictions GROUP BY 1 ORDER BY 2"
        )
    }
    decided = play.effects(settings).decided - before
    out.print(f"  {decided:,} of {len(events):,} payments decided by {champion[:12]}")
    report["epochs"].append({"champion": champion, "sent": len(events), "decided": decided, "by_bundle": by})


def _deciding(settings: TwinSettings, app: str) -> set[str]:
    """Champions that the processes of an app decide with."""
    return champions_in((settings.root / "logs" / f"{app}.log").read_text(encoding="utf-8", errors="replace"))


def champions_in(log: str) -> set[str]:
    """Digests of the champions that an app's processes decide with, by what each said last when one took over.

    A process that never looked for a champion has said nothing: it will begin with the one that the pointer names then.
    """
    # A reload names the processes anew, worker-1.0 after worker-0; the last number is the process's place.
    return set(dict(_TOOK_OVER.findall(log)).values())


def champion_of(settings: TwinSettings) -> str:
    """Digest of the champion by the pointer."""
    with BlobServiceClient.from_connection_string(settings.storage_connection()) as service:
        return BlobBundles(service.get_container_client("models")).pointer(Role.CHAMPION).digest or ""


def _retrained(settings: TwinSettings, number: int) -> dict[str, Any]:
    """Ask for a retraining and wait for its verdict; the document."""
    with psycopg.connect(settings.database_dsn()) as connection:
        connection.execute(
            "INSERT INTO tollgate.retraining_triggers (cause, priority, created_at_us)"
            " VALUES ('person', 0, (extract(epoch FROM now()) * 1000000)::bigint)"
        )
    play.fire_timer(settings.retrain, "answer_triggers")
    verdicts = "SELECT count(*) FROM tollgate.promotion_verdicts"
    play.until(lambda: play.number(settings, verdicts) >= number, "a verdict", _RUN_S)
    over = "SELECT count(*) FROM tollgate.retraining_triggers WHERE status = 'done'"
    play.until(lambda: play.number(settings, over) >= number, "the end of the retraining", _END_S)
    newest = "SELECT document FROM tollgate.promotion_verdicts ORDER BY decided_at_us DESC LIMIT 1"
    document: dict[str, Any] = json.loads(play.rows(settings, newest)[0][0])
    return document


def problems(report: dict[str, Any]) -> list[str]:
    """Which promises did not hold."""
    actions = [change["action"] for change in report["changes"] if change["role"] == "champion"]
    checks = {
        "the bad retraining was not refused": bool(report["refused"]),
        f"the champion's history is {actions}": actions[:1] == ["accept"] and actions[-2:] == ["promote", "rollback"],
        "not everything was decided": all(epoch["decided"] == epoch["sent"] for epoch in report["epochs"]),
        "another model decided": _by_whom(report["epochs"]),
        "decisions do not replay": report["replayed"] == sum(epoch["sent"] for epoch in report["epochs"])
        and not report["replay_mismatches"],
        "the log does not verify": not report["log_faults"],
    }
    return [problem for problem, holds in checks.items() if not holds]


def _by_whom(parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each epoch was decided by its champion alone."""
    expected: dict[str, int] = {}
    for part in parts:
        expected[part["champion"]] = expected.get(part["champion"], 0) + part["sent"]
        if part["by_bundle"] != expected:
            return False
    return True


def command(settings: TwinSettings, *arguments: str) -> str:
    """Run a `tollgate` command against this twin; what it printed.

    Raises:
        TwinError: It failed.
    """
    ports = {f"TWIN_PORT_{name.upper()}": str(port) for name, port in settings.ports().items()}
    done = subprocess.run(
        [sys.executable, "-m", "twin.cli", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **ports, "TOLLGATE_HOME": str(settings.root)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise TwinError(f"tollgate {' '.join(arguments)}: {done.stdout.strip()}")
    return done.stdout
