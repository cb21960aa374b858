"""`tollgate demo --drift`: quiet days, then payments that change, and who is told.

On a fresh twin: months of a simulated bank, a model, five quiet days, and two in which amounts are twice as high. The
timers of the drift app are fired by hand, because the days are played within seconds; nothing else is different from a
night in which nobody looks. Shown are the verdicts hour by hour, the trigger that asks for a retraining, the
notice as it reaches a web server of the operator's (one that the demo runs), and the report page.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from rich.console import Console

from shared.domain.instants import US_PER_HOUR, US_PER_MINUTE, format_instant
from simulator.changes import AmountChange, Change, Span
from simulator.wire import Sending
from twin import demo_play as play
from twin.demo_scene import HISTORY_DAYS, Scene, Shape, is_decided
from twin.services.app_settings import write_own_settings
from twin.services.journey import get
from twin.services.orchestra import TwinError
from twin.services.settings import HOST, TwinSettings

SCALE: Final = 0.6
"""Of the cardholders of `make demo`: about 900 transactions a day, so that an hour is small, as a small bank's is."""

LIVE_DAYS: Final = 7
QUIET_DAYS: Final = 5
FACTOR: Final = 2.0
"""Of all amounts, after the quiet days."""

SECRET: Final = "demo-only"  # noqa: S105 - signs posts from one loopback port of a developer's machine to another
HOURS_PER_FIRING: Final = 72
"""After so many new verdicts the timer is fired again: the drift app judges no more hours in one run."""

_FIRING_S: Final = 60
_NOTICE_S: Final = 60
_REPORT_S: Final = 60

type Progress = Callable[[str, int], AbstractContextManager[play.Tick]]


def scene(seed: int, now_us: int) -> Scene:
    """The world, with its change."""
    return Scene.with_frauds(seed, now_us, SCALE, Shape(live_days=LIVE_DAYS, changes=_changes))


def _changes(first_day: date) -> tuple[Change, ...]:
    return (AmountChange(Span(first_day + timedelta(days=HISTORY_DAYS + QUIET_DAYS)), FACTOR),)


class Inbox:
    """A web server of the operator's: keeps the notices that were posted to it with a signature that fits."""

    def __init__(self) -> None:
        """Listen on a free loopback port."""
        notices: list[dict[str, Any]] = []
        self.notices = notices

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                signed = is_signed(dict(self.headers.items()), body)
                if signed:
                    notices.append(json.loads(body))
                self.send_response(204 if signed else 401)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.address = f"http://{HOST}:{self._server.server_address[1]}/notices"

    @contextmanager
    def open(self) -> Iterator[Inbox]:
        """Answer until left."""
        thread = threading.Thread(target=self._server.serve_forever, name="inbox", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """Whether a post carries the signature that docs/notifications.md describes."""
    lower = {name.lower(): value for name, value in headers.items()}
    moment, signature = lower.get("tollgate-timestamp", ""), lower.get("tollgate-signature", "")
    wanted = hmac.new(SECRET.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature.removeprefix("v1="), wanted)


def prepare(settings: TwinSettings, inbox: Inbox) -> None:
    """Give the twin's apps what this demo needs: where notices go, and room for days that are played at once."""
    age = {"EVENT_MAX_AGE_DAYS": str(LIVE_DAYS + 2)}
    notify = {
        "NOTIFY_WEBHOOK_URL": inbox.address,
        "NOTIFY_WEBHOOK_SECRET": SECRET,
        "NOTIFY_LINK_BASE": f"http://{HOST}:{settings.drift}",
    }
    write_own_settings({"score": age, "ingest": age, "drift": notify}, settings)


def watch(settings: TwinSettings, world: Scene, inbox: Inbox, out: Console, progress: Progress) -> dict[str, Any]:
    """Play the live days, let the drift app look at them, and tell what it found.

    Args:
        settings: The twin's, with a champion that was published at the first live day.
        world: What is played.
        inbox: Where notices arrive.
        out: Where to tell.
        progress: Makes a bar: (what, how many) -> a context that is told how many more are done.

    Returns:
        What was seen, for the report.

    Raises:
        TwinError: The drift app did not come to its end in time.
    """
    until_us = (time.time_ns() // 1000 - 5 * US_PER_MINUTE) // US_PER_HOUR * US_PER_HOUR
    until_us = min(until_us, world.live_until_us)
    out.rule(f"4. {QUIET_DAYS} quiet days, then amounts times {FACTOR:g}", align="left")
    decided = _decide(settings, world, until_us, progress)
    out.rule("5. The drift app looks at every hour", align="left")
    hours = (until_us - world.live_from_us) // US_PER_HOUR
    _judge_hours(settings, until_us, hours, progress)
    report = _alarms(settings, world.live_from_us + QUIET_DAYS * 24 * US_PER_HOUR, until_us, out)
    report["triggers"] = _triggers(settings, out)
    out.rule("6. Somebody is told", align="left")
    _tell(settings, inbox, out)
    return {
        "decided": decided,
        "hours": hours,
        **report,
        "notices": len(inbox.notices),
        "history_days": HISTORY_DAYS,
    }


def _decide(settings: TwinSettings, world: Scene, until_us: int, progress: Progress) -> int:
    """Send what was played before an instant, and wait until it is decided; returns how much."""
    events = [
        event
        for chapter in world.live()
        for event in chapter.events
        if event.sending is Sending.GOOD and event.sent_at_us < until_us
    ]
    with progress("hub", len(events)) as tick:
        play.send_to_hub(settings, "transactions", [(event.customer, event.body) for event in events], tick)
    wanted = sum(map(is_decided, events))
    with progress("decided", wanted) as tick:
        shown = Counter[str]()

        def show(now: play.Effects) -> None:
            tick(now.decided - shown["decided"])
            shown["decided"] = now.decided

        play.until_effects(settings, lambda now: now.decided >= wanted, show)
    return wanted


def _judge_hours(settings: TwinSettings, until_us: int, hours: int, progress: Progress) -> None:
    """Fire the drift app's timer until every hour has its verdict; one firing judges some days of them."""
    with progress("hours", hours) as tick:
        done = 0
        deadline = time.monotonic() + _FIRING_S
        while done < hours:
            play.fire_timer(settings.drift, "check_drift")
            before = done
            while done < min(hours, before + HOURS_PER_FIRING) and time.monotonic() < deadline:
                time.sleep(0.5)
                now = len(_verdicts(settings, until_us))
                tick(now - done)
                if now > done:
                    deadline = time.monotonic() + _FIRING_S
                done = now
            if done == before:
                raise TwinError("the drift app gives no verdicts; see the logs")


def _alarms(settings: TwinSettings, drifts_us: int, until_us: int, out: Console) -> dict[str, Any]:
    """Tell what was said of the hours before and after the change."""
    verdicts = _verdicts(settings, until_us)
    alarms = [row for row in verdicts if row[1] == "drift"]
    false_alarms = [row for row in alarms if row[0] <= drifts_us]
    found = [row for row in alarms if row[0] > drifts_us]
    out.print(
        f"  {sum(row[0] <= drifts_us for row in verdicts)} quiet hours: {len(false_alarms)} false alarms;"
        f" {sum(row[0] > drifts_us for row in verdicts)} hours with the change: {len(found)} alarms"
    )
    delay_h = (found[0][0] - drifts_us) / US_PER_HOUR if found else None
    if found:
        out.print(f"  first alarm {delay_h:.0f} h after the change began, at {format_instant(found[0][0])}")
    return {"false_alarms": len(false_alarms), "alarms": len(found), "delay_h": delay_h}


def _triggers(settings: TwinSettings, out: Console) -> list[dict[str, Any]]:
    """Tell what asks for a retraining."""
    triggers = play.rows(
        settings,
        "SELECT cause, subject, priority, evidence FROM tollgate.retraining_triggers ORDER BY priority, trigger_id",
    )
    for cause, subject, priority, evidence in triggers:
        out.print(
            f"  trigger: {cause} of {subject or 'the whole'}, priority {priority}: {_shown(evidence)}",
            markup=False,
            soft_wrap=True,
        )
    return [{"cause": row[0], "subject": row[1], "priority": row[2]} for row in triggers]


def _tell(settings: TwinSettings, inbox: Inbox, out: Console) -> None:
    """Have the notices sent and the report drawn."""
    play.fire_timer(settings.drift, "send_notices")
    play.until(lambda: bool(inbox.notices), "a notice", _NOTICE_S)
    for notice in inbox.notices[:3]:
        out.print(f"  {notice['severity']}: {notice['title']}", markup=False, soft_wrap=True)
    out.print(f"  {len(inbox.notices)} notices posted, each with a signature that fits")
    play.fire_timer(settings.drift, "draw_reports")
    page = f"http://{HOST}:{settings.drift}/api/reports"
    play.until(lambda: "evidently/" in get(page)[1], "Evidently's report", _REPORT_S)
    body = get(page)[1]
    out.print(f"  report page: {page} ({len(body) / 1024:.0f} KB), reports by Evidently linked from it", soft_wrap=True)


def problems(report: dict[str, Any]) -> list[str]:
    """Which promises did not hold."""
    checks = {
        f"{report['false_alarms']} false alarms in the quiet days": report["false_alarms"] == 0,
        "the change was not found": report["alarms"] > 0,
        "nothing asks for a retraining": bool(report["triggers"]),
        "nobody was told": report["notices"] > 0,
    }
    return [problem for problem, holds in checks.items() if not holds]


def _verdicts(settings: TwinSettings, until_us: int) -> list[tuple[int, str]]:
    """(end of the hour, what was said) of the hours that were played, by time."""
    rows = play.rows(
        settings,
        "SELECT window_end_us, details->>'state' FROM tollgate.drift_metrics"
        " WHERE statistic = 'verdict' ORDER BY window_end_us",
    )
    return [(int(row[0]), str(row[1])) for row in rows if row[0] <= until_us]


def _shown(evidence: dict[str, Any]) -> str:
    """The numbers of a trigger, on one line."""
    flat = [f"{name} {value:.3g}" for name, value in evidence.items() if isinstance(value, int | float)]
    return ", ".join(flat[:6])
