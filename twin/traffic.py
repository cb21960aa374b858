"""The command `tollgate traffic`: simulated payments at a rate of your choice, with live statistics.

Exit codes: 0 if all answers were ones that a healthy product gives; 1 if not; 2 if the run could not begin.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from twin.services.settings import HOST, SettingsError, TwinSettings

if TYPE_CHECKING:
    from shared.adapters.connections import HubConnection
    from simulator.wire import WireEvent
    from twin.traffic_schedule import Profile
    from twin.traffic_senders import HttpLane, HubLane, Target
    from twin.traffic_statistics import Statistics

UNSOUND: Final = 1
IMPOSSIBLE: Final = 2

_LIVE_S: Final = 0.5
_LINE_S: Final = 5.0
_DRAIN_S: Final = 20.0
"""How long the queues may take to empty once nothing is due any more."""

_SETTLE_S: Final = 15.0
"""How long to wait for decisions of the hub when none comes any more; the outbox is emptied every few seconds."""

_out = Console(highlight=False)
_err = Console(stderr=True, highlight=False)


class Mode(StrEnum):
    """How the rate moves; see `traffic_schedule.Traffic`, which the command imports only when it runs."""

    REALISTIC = "realistic"
    BURST = "burst"
    SPIKE = "spike"


class Over(StrEnum):
    """Which way events go."""

    HTTP = "http"
    HUB = "hub"
    BOTH = "both"


def traffic(
    *,
    mode: Annotated[
        Mode, typer.Option("--mode", help="A day's rhythm; quiet and x5 in turn; one x10 spike in the middle.")
    ] = Mode.REALISTIC,
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, max=10_080, help="How long.")] = 1.0,
    tps: Annotated[float, typer.Option("--tps", min=0.01, max=20_000, help="Base rate, transactions a second.")] = 20.0,
    over: Annotated[Over, typer.Option("--over", help="Which way events go.")] = Over.BOTH,
    http_share: Annotated[
        float, typer.Option("--http-share", min=0, max=1, help="Share of the cardholders over HTTP, of both ways.")
    ] = 0.2,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bank that is played.")] = 1,
    duplicates: Annotated[float, typer.Option("--duplicates", min=0, max=1, help="Share that is sent twice.")] = 0.05,
    malformed: Annotated[
        float, typer.Option("--malformed", min=0, max=1, help="Broken bodies beside the others, as a share of them.")
    ] = 0.01,
    clients: Annotated[int, typer.Option("--clients", min=1, max=256, help="HTTP connections.")] = 8,
    url: Annotated[str | None, typer.Option("--url", help="The score app's; the twin's by default.")] = None,
    key: Annotated[str | None, typer.Option("--key", envvar="TOLLGATE_KEY", help="The score app's access key.")] = None,
    hub: Annotated[
        str | None, typer.Option("--hub", help="Connection string of the Event Hubs; the twin's by default.")
    ] = None,
    group: Annotated[
        str, typer.Option("--group", help="Consumer group that decisions are read back with.")
    ] = "$Default",
    report: Annotated[Path | None, typer.Option("--json", help="Write the summary to this file, too.")] = None,
) -> None:
    """Send simulated payments in an open loop, show what becomes of them (exit code 1: an unexpected answer)."""
    from azure.eventhub.exceptions import EventHubError  # noqa: PLC0415 - commands import what they use

    from shared.adapters.connections import ConnectionSettingError  # noqa: PLC0415
    from twin.services.orchestra import TwinError  # noqa: PLC0415
    from twin.traffic_schedule import Stage, Traffic, profile_of  # noqa: PLC0415

    share = {Over.HTTP: 1.0, Over.HUB: 0.0, Over.BOTH: http_share}[over]
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # what fails is counted; the SDK's own words would tear Live
    stage = Stage(seed, datetime.now(UTC).date() - timedelta(days=1))
    profile = profile_of(Traffic(mode.value), minutes * 60, tps, stage.rhythm())
    try:
        where = _where(over, url, key, hub)
        with ExitStack() as open_parts:
            run = Run.begin(open_parts, where, share, clients, group)
            stopping = open_parts.enter_context(_stopped_politely())
            _out.print(
                f"{mode} over {over}: about {profile.expected:,.0f} transactions in {minutes:g} min,"
                f" seed {seed}, {duplicates:.0%} sent twice, {malformed:.0%} broken; Ctrl-C ends it",
                soft_wrap=True,
            )
            started_us, began_s = time.time_ns() // 1000, time.monotonic()
            events = stage.events(profile, started_us, duplicates, malformed)
            with _shown(run.statistics, profile, began_s):
                _offer(run, events, (started_us, began_s), stopping)
                sent_s = time.monotonic() - began_s
                _finish(run, stopping)
    except (EventHubError, ConnectionSettingError, SettingsError, TwinError) as error:
        _fail(str(error).partition("\n")[0])
    document = {
        "mode": mode.value,
        "over": over.value,
        "seed": seed,
        "tps": tps,
        "planned_s": profile.seconds,
        "seconds": round(sent_s, 3),
        "interrupted": stopping.is_set(),
        "sound": run.statistics.is_sound,
        **run.statistics.document(),
    }
    for line in summary(document):
        _out.print(line, markup=False, soft_wrap=True)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    raise typer.Exit(0 if run.statistics.is_sound else UNSOUND)


@dataclass(frozen=True, slots=True)
class Where:
    """Where events go; None for a way that is not taken."""

    target: Target | None
    hub: HubConnection | None


@dataclass(frozen=True, slots=True)
class Run:
    """A run's parts: what counts, and the lanes that send."""

    statistics: Statistics
    http: HttpLane | None
    hub: HubLane | None
    share: float

    @classmethod
    def begin(cls, open_parts: ExitStack, where: Where, share: float, clients: int, group: str) -> Run:
        """Connect and start the senders; the stack closes what was opened.

        Raises:
            EventHubError: The hub cannot be reached or refuses.
        ConnectionSettingError: The hub's connection string cannot be read.
        """
        from twin.traffic_senders import HttpLane, HubLane, Watch, hub_producer  # noqa: PLC0415
        from twin.traffic_statistics import Statistics  # noqa: PLC0415

        statistics = Statistics()
        http = hub = None
        if where.target is not None:
            http = HttpLane(statistics, where.target)
            http.start(clients)
        if where.hub is not None:
            hub = HubLane(statistics, open_parts.enter_context(hub_producer(where.hub, "transactions")))
            hub.start(1)
            watch = Watch(statistics, where.hub, "decisions", group)
            watch.start()
            open_parts.callback(watch.stop)
        return cls(statistics, http, hub, share)

    @property
    def lanes(self) -> list[HttpLane | HubLane]:
        """The lanes that are used."""
        return [lane for lane in (self.http, self.hub) if lane is not None]


def _where(over: Over, url: str | None, key: str | None, hub: str | None) -> Where:
    """The targets that options name, else the twin's.

    Raises:
        SettingsError: The twin's settings cannot be used.
        TwinError: The twin's mode needs something that is not there.
        ConnectionSettingError: The hub's connection string cannot be used.
    """
    from shared.adapters.connections import parse_hub  # noqa: PLC0415
    from twin.services.modes import Mode as Kind  # noqa: PLC0415
    from twin.services.plan import plan  # noqa: PLC0415
    from twin.traffic_senders import Target  # noqa: PLC0415

    if url is not None and not _is_endpoint(url):
        _fail("--url must be http://HOST or https://HOST")
    if url is not None and hub is None and over is not Over.HTTP:
        _fail("with --url say where the hub is, with --hub, or --over http")
    if hub is not None and url is None and over is not Over.HUB:
        _fail("with --hub say where the score app is, with --url, or --over hub")
    headers = {"x-functions-key": key} if key else {}
    settings: Mapping[str, str] = {"EVENT_HUBS": hub} if hub is not None else {}
    if url is None and hub is None:
        own = TwinSettings.read(os.environ)
        twin = plan(own, Kind.load(own.root))
        if twin.keys:
            os.environ.update(twin.keys.environment())  # the SDKs look for identity and roots there
        url, settings = f"http://{HOST}:{own.score}", twin.app_settings("ingest")
        headers = headers or twin.headers("score")
    return Where(
        Target(url, headers) if url is not None and over is not Over.HUB else None,
        parse_hub("EVENT_HUBS", settings) if over is not Over.HTTP else None,
    )


def _is_endpoint(url: str) -> bool:
    """Whether an HTTP client can be pointed there."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _offer(run: Run, events: Iterator[WireEvent], start: tuple[int, float], stopping: threading.Event) -> None:
    """Put each event into its queue when it is due, whatever became of the others."""
    from twin.traffic_schedule import goes_over_http  # noqa: PLC0415

    started_us, began_s = start
    for event in events:
        due_s = began_s + (event.sent_at_us - started_us) / 1e6
        wait_s = due_s - time.monotonic()
        if stopping.wait(wait_s) if wait_s > 0 else stopping.is_set():
            return
        # What is too long for the stream is not too long for HTTP, where it would be decided.
        over_http = goes_over_http(event.customer, run.share) and (event.fault != "too-long" or run.hub is None)
        lane = run.http if over_http else run.hub
        if lane is not None:
            run.statistics.due(over_http=over_http, taken=lane.offer((due_s, event)))


def _finish(run: Run, stopping: threading.Event) -> None:
    """Let the queues empty and the hub's decisions come; once it is being stopped, give up what waits."""
    for lane in run.lanes:
        lane.close()
    deadline_s = time.monotonic() + _DRAIN_S
    while not all(lane.is_done for lane in run.lanes):
        if stopping.is_set() or time.monotonic() > deadline_s:
            for lane in run.lanes:
                lane.abandon()
        if time.monotonic() > deadline_s + _DRAIN_S:
            break  # a thread hangs in a vendor's retries; it dies with the process
        time.sleep(0.05)
    moved_s, last = time.monotonic(), run.statistics.awaited
    while run.statistics.awaited and not stopping.wait(0.1) and time.monotonic() - moved_s < _SETTLE_S:
        if run.statistics.awaited != last:
            moved_s, last = time.monotonic(), run.statistics.awaited


@contextmanager
def _stopped_politely() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one interrupts."""
    stopping = threading.Event()

    def stop(*_: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _shown(statistics: Statistics, profile: Profile, began_s: float) -> Iterator[None]:
    """Show how it goes meanwhile: a table on a terminal, else a line now and then."""
    if _out.is_terminal:
        pace = Pace(statistics)
        with Live(
            console=_out,
            get_renderable=lambda: table(statistics, profile, time.monotonic() - began_s, pace.rate()),
            refresh_per_second=1 / _LIVE_S,
        ):
            yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_print_lines, args=(statistics, began_s, ended.wait), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Pace:
    """The rate of sending since it was last asked for."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._sent, self._at_s = 0, time.monotonic()

    def rate(self) -> float:
        """Events sent a second."""
        sent, now_s = self._statistics.sent_http + self._statistics.sent_hub, time.monotonic()
        rate = (sent - self._sent) / max(1e-3, now_s - self._at_s)
        self._sent, self._at_s = sent, now_s
        return rate


def _print_lines(statistics: Statistics, began_s: float, wait: Callable[[float], bool]) -> None:
    pace = Pace(statistics)
    while not wait(_LINE_S):
        seen = statistics.document()
        _out.print(
            f"{time.monotonic() - began_s:6.0f} s  sent {seen['sent']['http']:,} http, {seen['sent']['hub']:,} hub"
            f" ({pace.rate():,.1f}/s)  {_counts(seen['statuses']) or 'no answers'}"
            f"  p50/p95/p99 {_percentiles(seen['http_ms'])} ms  lag {seen['undecided']:,}"
            f"  dropped {sum(seen['dropped'].values()):,}  failed {sum(seen['failures'].values()):,}",
            markup=False,
            soft_wrap=True,
        )


def table(statistics: Statistics, profile: Profile, offset_s: float, rate: float) -> Table:
    """The live statistics."""
    seen = statistics.document()
    title = (
        f"{min(offset_s, profile.seconds):.0f} of {profile.seconds:.0f} s:"
        f" {profile.rate_at(offset_s):,.1f} transactions/s wanted, {rate:,.1f} events/s sent"
    )
    shown = Table(title=title, title_justify="left", min_width=72)
    for heading in ("", "HTTP", "hub"):
        shown.add_column(heading, justify="right" if heading else "left")
    shown.add_row("sent", f"{seen['sent']['http']:,}", f"{seen['sent']['hub']:,}")
    shown.add_row("answers by status", _counts(seen["statuses"]), "")
    shown.add_row("not decided yet (lag)", "", f"{seen['undecided']:,}")
    shown.add_row("decisions", _counts(seen["decisions"]["http"]), _counts(seen["decisions"]["hub"]))
    shown.add_row("p50/p95/p99 ms", _percentiles(seen["http_ms"]), _percentiles(seen["hub_decided_ms"]))
    shown.add_row("dropped", f"{seen['dropped']['http']:,}", f"{seen['dropped']['hub']:,}")
    shown.caption = f"failures: {_counts(seen['failures'])}" if seen["failures"] else None
    return shown


def summary(document: Mapping[str, Any]) -> list[str]:
    """The lines that end a run."""
    sent, dropped = document["sent"], document["dropped"]
    lines = [
        "",
        f"{'interrupted' if document['interrupted'] else 'done'} after {document['seconds']:.1f} s:"
        f" {document['scheduled']:,} events were due, {sent['http']:,} sent over HTTP, {sent['hub']:,} to the hub"
        f" ({sum(sent.values()) / max(0.001, document['seconds']):,.1f}/s)",
        f"dropped        {dropped['http']:,} HTTP and {dropped['hub']:,} hub (queue full),"
        f" {dropped['abandoned']:,} still waiting at the end",
    ]
    if document["statuses"]:
        lines += [
            f"HTTP           {_counts(document['statuses'])}",
            f"  decisions    {_counts(document['decisions']['http']) or 'none'};"
            f" {document['repeated_answers']:,} repeats got the stored answer",
            f"  latency      {_spread(document['http_ms'])}, from when each should have been sent",
        ]
    if sent["hub"]:
        lines += [
            f"hub decisions  {_counts(document['decisions']['hub']) or 'none'}; {document['undecided']:,} not seen yet",
            f"  accepted     {_spread(document['hub_accepted_ms'])}",
            f"  decided      {_spread(document['hub_decided_ms'])}, until seen on the decisions hub",
        ]
    if document["unexpected"]:
        lines.append(f"unexpected     {_counts(document['unexpected'])}")
    if document["failures"]:
        lines.append(f"failed         {_counts(document['failures'])}")
    lines.append("all answers were as they may be" if document["sound"] else "NOT as it should be, see above")
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items())


def _percentiles(ms: Mapping[str, float]) -> str:
    return "/".join(f"{ms[name]:,.1f}" for name in ("p50", "p95", "p99"))


def _spread(ms: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {ms[name]:,.1f}" for name in ("p50", "p95", "p99", "max")) + " ms"


def _fail(message: str) -> NoReturn:
    _err.print(f"tollgate: {message}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(IMPOSSIBLE)
