"""`make demo`: the whole gate at work on a fresh twin.

Months of a simulated bank are taken in, a model is trained on them and published, and the last days are played live:
through the hub with the unmodified SDK and over HTTP, with repeats, shuffling, late and broken events. Then the labels
come, and everything is counted, judged against the truth, and verified. KEEP=1 leaves the twin up; SCALE=0.3 plays
with so much of the cardholders. DATA=FILE plays a file of real transactions instead (see `demo_file`). DEMO_HOME=FOLDER
plays there, where another demo goes on in the usual folder: whatever is in it is wiped.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from azure.eventhub.exceptions import EventHubError
from azure.storage.blob import BlobServiceClient
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shared.adapters.blob_bundles import BlobBundles
from shared.adapters.blob_seals import BlobSeals
from shared.adapters.bundle_archive import BundleArchive
from shared.adapters.postgres import parse_postgres
from shared.adapters.postgres_archive import PostgresArchive
from shared.adapters.system_clock import SystemClock
from shared.domain.archive import Selection
from shared.domain.bundle_pointer import Role
from shared.domain.errors import TollgateError
from shared.domain.evaluation import Outcomes, Ranking
from shared.domain.feature_view import CARD_V1
from shared.ports.clock import Clock
from shared.services.replaying import Replaying
from shared.services.training_publication import publish
from shared.services.verification_decisions import verify_decisions
from shared.services.verification_log import verify_log
from simulator.wire import Sending
from twin import demo_drift, demo_learning
from twin import demo_play as play
from twin.demo_file import LIVE_DAYS, FileScene
from twin.demo_scene import Chapter, Scene, is_decided
from twin.history import UnreadableFile
from twin.services import state_folder
from twin.services.app_settings import write_own_settings
from twin.services.journey import get
from twin.services.modes import Mode
from twin.services.orchestra import Step, TwinError, bring_up, only_one, take_down
from twin.services.plan import plan
from twin.services.processes import Records
from twin.services.service import Service, port_owner
from twin.services.settings import HOST, REPOSITORY, SettingsError, TwinSettings

HOME: Final = REPOSITORY / "build" / "demo" / "twin"
SEED: Final = 20
_READY_S: Final = 60
_FEW: Final = 3

_out = Console(highlight=False)

type AnyScene = Scene | FileScene


def main(*, drift: bool = False, learning: bool = False) -> int:
    """Run the demo, or the one of drift or of learning; returns the exit code."""
    began = time.monotonic()
    try:
        settings = demo_settings(TwinSettings.read(os.environ), Path(os.environ.get("DEMO_HOME") or HOME))
        with ExitStack() as stack:
            if drift:
                inbox = stack.enter_context(demo_drift.Inbox().open())
                _bring_up(settings, lambda: demo_drift.prepare(settings, inbox))
            elif learning:
                _bring_up(settings, lambda: demo_learning.prepare(settings))
            else:
                _bring_up(settings, lambda: _make_room(settings))
            if os.environ.get("KEEP") != "1":
                stack.callback(_take_down, settings)
            if drift:
                report = _play_drift(settings, inbox)
            else:
                report = _play_learning(settings) if learning else _play(settings)
    except (TwinError, SettingsError, UnreadableFile, EventHubError, TollgateError, OSError) as error:
        _out.print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    report["seconds"] = round(time.monotonic() - began, 1)
    report_file = settings.root.with_name("report.json")
    report_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    judge = demo_drift.problems if drift else demo_learning.problems if learning else _problems
    problems = judge(report)
    for problem in problems:
        _out.print(f"demo: {problem}", style="red", markup=False)
    verdict = "FAILED" if problems else "Done"
    _out.print(f"\n{verdict} in {report['seconds']:.0f} s. Report: {_shown(report_file)}")
    if os.environ.get("KEEP") == "1":
        _out.print(
            f"The twin stays up: TOLLGATE_HOME={settings.root} {_ports(settings)} tollgate status", soft_wrap=True
        )
    return 1 if problems else 0


def _bring_up(settings: TwinSettings, prepare: Callable[[], None]) -> None:
    """Start a twin without a past; `prepare` may give it settings of its own."""
    records = Records(settings.root / "run")
    with only_one(settings.root):
        _out.rule("1. A fresh twin", align="left")
        _take_down(settings)
        state_folder.wipe(settings.root)
        prepare()
        bring_up(plan(settings, Mode()).layers, records, _show, timeout_s=90)


def _take_down(settings: TwinSettings) -> None:
    take_down(plan(settings, Mode()).layers, Records(settings.root / "run"), lambda *_: None)


def _make_room(settings: TwinSettings) -> None:
    """Let the apps take events of weeks, where weeks of a file are played today."""
    if os.environ.get("DATA"):
        age = {"EVENT_MAX_AGE_DAYS": str(LIVE_DAYS + 2)}
        write_own_settings({"score": age, "ingest": age}, settings)


def demo_settings(settings: TwinSettings, home: Path) -> TwinSettings:
    """The settings of the demo's own twin: its own folder, and free ports where the usual ones are taken."""
    moved: dict[str, str] = {"TOLLGATE_HOME": str(home)}
    for name, port in settings.ports().items():
        moved[f"TWIN_PORT_{name.upper()}"] = str(port if port_owner(port) is None else _free_port())
    return TwinSettings.read(moved)


def _play(settings: TwinSettings) -> dict[str, Any]:
    scene = _scene()
    taken, model = _founded(settings, scene, SystemClock())
    _out.rule(f"4. {scene.live_days} live days: hub and HTTP", align="left")
    report = {"history": dict(taken), "model": model, **_live(settings, scene)}
    _out.rule("5. What it was worth, and whether it holds", align="left")
    report |= _judged(settings, scene)
    report |= _explained(settings, scene)
    report |= _verified(settings)
    return report


def _play_drift(settings: TwinSettings, inbox: demo_drift.Inbox) -> dict[str, Any]:
    world = demo_drift.scene(SEED, time.time_ns() // 1000)
    # Published when the live days began, as far as anybody can tell: a champion is not watched before its promotion.
    taken, model = _founded(settings, world, _At(world.live_from_us))
    seen = demo_drift.watch(settings, world, inbox, _out, _progress)
    return {"history": dict(taken), "model": model, **seen}


def _play_learning(settings: TwinSettings) -> dict[str, Any]:
    world = demo_learning.scene(SEED, time.time_ns() // 1000)
    taken = _history(settings, world)
    _out.rule("3. A champion from before the new fraud", align="left")
    first = demo_learning.first_champion(settings, world, _out)
    _await_ready(settings)

    def restart() -> None:
        with only_one(settings.root):
            bring_up(plan(settings, Mode()).layers, Records(settings.root / "run"), lambda *_: None, timeout_s=90)

    report = demo_learning.learn(settings, world, first, restart, _out)
    _out.rule("8. Whether all of it can be rebuilt", align="left")
    return {"history": dict(taken), **report, **_verified(settings)}


@dataclass(frozen=True, slots=True)
class _At:
    """A clock that stands."""

    us: int

    def now_us(self) -> int:
        """Always the same."""
        return self.us


def _founded(settings: TwinSettings, scene: AnyScene, clock: Clock) -> tuple[Counter[str], dict[str, Any]]:
    """Take in history and publish a model that was trained on it; what was taken in, and the model's figures."""
    taken = _history(settings, scene)
    _out.rule("3. A model, trained and published", align="left")
    return taken, _train(settings, scene, clock)


def _history(settings: TwinSettings, scene: AnyScene) -> Counter[str]:
    """Take in history; returns how much."""
    _out.rule(f"2. {scene.history_days} days of history", align="left")
    _out.print(f"  {scene.told}", soft_wrap=True)
    with _progress("days", scene.history_days) as tick:
        began = time.monotonic()
        taken = play.import_history(settings, scene.history(), (scene.starts_us, scene.live_until_us), tick)
    _out.print(
        f"  {taken['imported']:,} transactions and {taken['labels']:,} labels in {time.monotonic() - began:.0f} s"
        " (labels ordered by when they were known; silence counts as genuine after 30 days)"
    )
    return taken


def _scene() -> AnyScene:
    """The world that is played: the simulator's, or a file's."""
    now_us = time.time_ns() // 1000
    if os.environ.get("DATA"):
        return FileScene(Path(os.environ["DATA"]), now_us)
    return Scene.with_frauds(SEED, now_us, float(os.environ.get("SCALE", "1")))


def _train(settings: TwinSettings, scene: AnyScene, clock: Clock) -> dict[str, Any]:
    """Train on history, publish, and wait until both apps decide with it."""
    from shared.adapters.onnx_scorer import OnnxGraph  # noqa: PLC0415 - with the next, a second that nobody else pays
    from shared.adapters.xgboost_trainer import XgboostTrainer  # noqa: PLC0415
    from shared.services.training import train  # noqa: PLC0415

    began = time.monotonic()
    given = scene.training()
    made = train(
        CARD_V1,
        given.transactions,
        given.labels,
        given.plan,
        trainer=XgboostTrainer(),
        load_graph=OnnxGraph,
        name="card-fraud",
        version=1,
    )
    with BlobServiceClient.from_connection_string(settings.storage_connection()) as service:
        store = BlobBundles(service.get_container_client("models"))
        publish(store, made.files, Role.CHAMPION, clock=clock, author="demo", reason="first model")
    _out.print(
        f"  card-fraud 1 in {time.monotonic() - began:.0f} s: AUC {made.test.auc:.3f},"
        f" AP {made.test.average_precision:.3f} on its test days; bundle {made.digest[:12]}..."
    )
    _await_ready(settings)
    return {"digest": made.digest, "auc": made.test.auc, "ap": made.test.average_precision}


def _await_ready(settings: TwinSettings) -> None:
    """Wait until both apps that decide have a model."""
    deadline = time.monotonic() + _READY_S
    for port in (settings.score, settings.ingest):
        while get(f"http://{HOST}:{port}/api/health/ready")[0] != 200:
            if time.monotonic() > deadline:
                raise TwinError("the apps did not take the model over; see the logs")
            time.sleep(0.2)
    _out.print("  score and ingest decide with it")


def _live(settings: TwinSettings, scene: AnyScene) -> dict[str, Any]:
    """Send everything, chapter by chapter, and wait until each has its effects."""
    chapters = scene.live()
    events = [event for chapter in chapters for event in chapter.events]
    sendings = Counter(event.sending for event in events)
    over_http = sum(map(play.goes_over_http, events))
    _out.print(
        f"  {len(events) - over_http:,} events to the hub, {over_http:,} over HTTP: "
        + ", ".join(f"{sendings[kind]:,} {kind}" for kind in Sending)
    )
    answers, decided_by_hub, hub_s, buried = play.HttpResults(), 0, 0.0, 0
    for number, chapter in enumerate(chapters, start=1):
        if len(chapters) > 1:
            _out.print(f"  week {number} of {len(chapters)}: {len(chapter.events):,} events")
        took_s, by_hub, broken = _through_the_hub(settings, chapter)
        hub_s, decided_by_hub, buried = hub_s + took_s, decided_by_hub + by_hub, buried + broken
        asked = [event for event in chapter.events if play.goes_over_http(event)]
        with _progress("HTTP", len(asked)) as tick:
            answers.add(play.send_over_http(settings.score, asked, tick))
        labels, before = chapter.labels, play.effects(settings).labels
        with _progress("labels", len(labels)) as tick:
            play.send_to_hub(settings, "labels", [(place, body) for place, body in enumerate(labels)], tick)
            play.until_effects(settings, lambda now: now.labels >= before + len(labels), lambda _: None)  # noqa: B023 - called before the next round
    after, letters = play.effects(settings), play.dead_letters_by_reason(settings)
    n_labels, wanted = sum(len(chapter.labels) for chapter in chapters), sum(map(is_decided, events))
    http_ms = {
        name: round(answers.percentile(share), 2) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    absorbed = sendings[Sending.GOOD] + sendings[Sending.LATE] + sendings[Sending.REPEATED] - after.decided
    _out.print(
        f"  decided {after.decided:,} of {wanted:,}; {absorbed:,} repeats absorbed; {n_labels:,} labels recorded"
    )
    _out.print(f"  through the hub {decided_by_hub / hub_s:,.0f} decisions per second, sender and apps on one machine")
    _out.print(
        f"  over HTTP p50 {http_ms['p50']} ms, p95 {http_ms['p95']} ms, p99 {http_ms['p99']} ms,"
        f" {play.HTTP_CLIENTS} clients at once"
    )
    _out.print(
        f"  dead letters: {after.dead_letters} ({', '.join(f'{field} {count}' for field, count in letters.items())})"
    )
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(answers.statuses.items()))
    _out.print(f"  HTTP statuses: {statuses}")
    return {
        "sent": len(events),
        "expected": wanted,
        "decided": after.decided,
        "duplicates_absorbed": absorbed,
        "repeats_sent": sendings[Sending.REPEATED],
        "dead_letters": letters,
        "dead_letters_expected": buried,
        "decisions_per_s": round(decided_by_hub / hub_s, 1),
        "http_ms": http_ms,
        "http_statuses": {str(status): count for status, count in answers.statuses.items()},
        "labels": n_labels,
    }


def _through_the_hub(settings: TwinSettings, chapter: Chapter) -> tuple[float, int, int]:
    """Send a chapter's events to the hub; returns seconds until all had effects, decisions, and dead letters due."""
    to_hub = [event for event in chapter.events if not play.goes_over_http(event)]
    buried = sum(event.sending in {Sending.CONFLICTING, Sending.MALFORMED} for event in to_hub)
    n_decided = sum(map(is_decided, to_hub))
    before = play.effects(settings)
    began = time.monotonic()
    with _progress("hub", len(to_hub)) as tick:
        play.send_to_hub(settings, "transactions", [(event.customer, event.body) for event in to_hub], tick)
    with _progress("decided", n_decided) as tick:
        shown = Counter({"decided": before.decided})

        def show(now: play.Effects) -> None:
            tick(now.decided - shown["decided"])
            shown["decided"] = now.decided

        play.until_effects(
            settings,
            lambda now: now.decided >= before.decided + n_decided and now.dead_letters >= before.dead_letters + buried,
            show,
        )
    return time.monotonic() - began, play.effects(settings).decided - before.decided, buried


def _judged(settings: TwinSettings, scene: AnyScene) -> dict[str, Any]:
    """What the scores of decisions are worth that were taken before their label was known, judged by the truth."""
    truth, rows = scene.truth(), play.scored(settings)
    outcomes = Outcomes(
        event_time_us=np.array([row[2] for row in rows], dtype=np.int64),
        customer=np.array([row[1] for row in rows], dtype=np.str_),
        is_fraud=np.array([truth[row[0]] for row in rows], dtype=np.bool_),  # type: ignore[index]  # ids as text
    )
    scores = np.array([row[3] for row in rows])
    found, best = Ranking(outcomes, scores).quality(), Ranking(outcomes, outcomes.is_fraud.astype(np.float64)).quality()
    n_fraud = int(outcomes.is_fraud.sum())
    _out.print(
        f"  {len(rows):,} decisions before their label, {n_fraud} frauds: AP {found.average_precision:.3f}"
        f" (chance {n_fraud / max(1, len(rows)):.3f}), card precision of the daily top 100 {found.card_precision:.3f}"
        f" (perfect {best.card_precision:.3f})"
    )
    return {
        "judged": len(rows),
        "frauds": n_fraud,
        "ap": round(found.average_precision, 4),
        "cp_at_100": round(found.card_precision, 4),
        "cp_at_100_perfect": round(best.card_precision, 4),
    }


def _explained(settings: TwinSettings, scene: AnyScene) -> dict[str, Any]:
    """The decisions with the highest scores, with their reasons."""
    truth = scene.truth()
    rows = sorted(play.scored(settings), key=lambda row: (-row[3], row[0]))[:_FEW]
    explained = []
    for transaction_id, *_ in rows:
        found = play.decision(settings.score, transaction_id)
        explained.append(found)
        was = "fraud" if truth[transaction_id] else "genuine"  # type: ignore[index]  # ids as text
        _out.print(f"  {transaction_id}: {found['decision']} at {found['score']:.3f}; in truth {was}", markup=False)
        for reason in found["reasons"]:
            _out.print(
                f"    {reason['code']} {reason['text']} ({reason['feature']} = {reason['value']},"
                f" {reason['contribution']:+.2f})",
                markup=False,
            )
    return {"explained": explained}


def _verified(settings: TwinSettings) -> dict[str, Any]:
    """Recompute every decision from raw events, and walk the log."""
    from shared.adapters.onnx_scorer import OnnxScorer  # noqa: PLC0415 - loaded by training already

    archive = PostgresArchive(parse_postgres("DATABASE", {"DATABASE": settings.database_dsn()}), "demo")
    with BlobServiceClient.from_connection_string(settings.storage_connection()) as service:
        bundles = BundleArchive(BlobBundles(service.get_container_client("models")), OnnxScorer)
        with _progress("read", None) as tick:
            read: dict[str, int] = {}

            def show(what: str, rows: int) -> None:
                tick(rows - read.get(what, 0))
                read[what] = rows

            decisions = verify_decisions(archive, Replaying(bundles), Selection(), progress=show)
        log = verify_log(archive, BlobSeals(service.get_container_client("seals")))
    mismatches = decisions.findings.total
    _out.print(
        f"  verify decisions: {decisions.replayed:,} replayed bit for bit, {decisions.values:,} feature values"
        f" recomputed from raw events, {mismatches} mismatches"
    )
    _out.print(f"  verify log: {log.blocks:,} blocks of {log.writers} writers, {log.findings.total} faults")
    return {
        "replayed": decisions.replayed,
        "replay_mismatches": mismatches,
        "log_blocks": log.blocks,
        "log_faults": log.findings.total,
    }


def _problems(report: dict[str, Any]) -> list[str]:
    """Which promises of the demo did not hold."""
    checks = {
        f"{report['decided']} decisions, not {report['expected']}": report["decided"] == report["expected"],
        "repeats were not absorbed": report["duplicates_absorbed"] == report["repeats_sent"],
        "dead letters are not those that were expected": (
            sum(report["dead_letters"].values()) == report["dead_letters_expected"]
        ),
        "decisions do not replay": report["replayed"] == report["decided"] and not report["replay_mismatches"],
        "the log does not verify": not report["log_faults"],
    }
    return [problem for problem, holds in checks.items() if not holds]


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[play.Tick]:
    """A bar on a terminal, a line at the end elsewhere; None where nobody knows how much there will be."""
    columns = (TextColumn(f"  {what:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_out, transient=_out.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


def _show(service: Service, step: Step) -> None:
    if step in {Step.STARTING, Step.UP}:
        _out.print(f"  {service.name:<10} {step}", markup=False)


def _ports(settings: TwinSettings) -> str:
    usual = TwinSettings().ports()
    return " ".join(f"TWIN_PORT_{k.upper()}={v}" for k, v in settings.ports().items() if v != usual[k])


def _shown(path: Path) -> str:
    """A path as it is read from the repository."""
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return int(trial.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
