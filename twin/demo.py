"""`make demo`: a fresh twin, one event and one request through the real apps, and what became of both.

KEEP=1 leaves the twin up.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import Any

from azure.eventhub.exceptions import EventHubError
from azure.storage.blob import BlobServiceClient
from rich.console import Console

from twin.services import state_folder
from twin.services.app_settings import with_keys
from twin.services.journey import Journey, get, send, travel
from twin.services.modes import Mode
from twin.services.orchestra import Step, TwinError, bring_up, only_one, take_down
from twin.services.plan import Plan, plan
from twin.services.processes import Records
from twin.services.service import Service, port_owner
from twin.services.settings import HOST, REPOSITORY, SettingsError, TwinSettings

HOME = REPOSITORY / "build" / "demo" / "twin"
REPORT = HOME.with_name("report.json")
MALFORMED = b'{"type": "tollgate.probe", "probe_id": "demo", "sent_at_us": "yesterday"}'
_WAIT_S = 30

_out = Console(highlight=False)


def main() -> int:
    """Run the demo; returns the exit code."""
    began = time.monotonic()
    try:
        settings = demo_settings(TwinSettings.read(os.environ))
        twin = plan(settings, Mode())
        records = Records(settings.root / "run")
        with only_one(settings.root):
            _out.rule("1. A fresh twin", align="left")
            take_down(twin.layers, records, _show)
            state_folder.wipe(settings.root)
            bring_up(twin.layers, records, _show, timeout_s=90)
        try:
            report = {"up_s": round(time.monotonic() - began, 2), **_travel(twin)}
        finally:
            if os.environ.get("KEEP") != "1":
                _out.rule("4. Down again", align="left")
                take_down(twin.layers, records, _show)
    except (TwinError, SettingsError, EventHubError) as error:
        _out.print(f"demo: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    ok = bool(report["answered"] and report["dead_lettered"])
    _out.print(
        f"\n{'Done' if ok else 'FAILED'} in {time.monotonic() - began:.1f} s. Report: {REPORT.relative_to(REPOSITORY)}"
    )
    if os.environ.get("KEEP") == "1":
        _out.print(f"The twin stays up: TOLLGATE_HOME={HOME} {_ports(settings)} tollgate status", soft_wrap=True)
    return 0 if ok else 1


def demo_settings(settings: TwinSettings) -> TwinSettings:
    """The settings of the demo's own twin: its own folder, and free ports where the usual ones are taken."""
    moved: dict[str, str] = {"TOLLGATE_HOME": str(HOME)}
    for name, port in settings.ports().items():
        moved[f"TWIN_PORT_{name.upper()}"] = str(port if port_owner(port) is None else _free_port())
    return TwinSettings.read(moved)


def _travel(twin: Plan) -> dict[str, Any]:
    app_settings = with_keys("ingest", twin.settings)
    _out.rule("2. One event through the hub, one request over HTTP", align="left")
    journey = travel(twin.settings.score, app_settings, timeout_s=_WAIT_S)
    _show_journey(journey)
    _out.rule("3. An event that nobody can read", align="left")
    letter = _send_malformed(app_settings, twin.settings.storage_connection())
    status, _ = get(f"http://{HOST}:{twin.settings.score}/api/probes/demo")
    _out.print(f"  GET /api/probes/demo   -> {status} (it left no receipt, and the stream went on)")
    return {
        "sent": 2,
        "answered": journey.arrived,
        "event_to_answer_ms": round(journey.seconds * 1000, 1),
        "receipt": journey.receipt,
        "dead_lettered": letter is not None,
        "dead_letter": letter,
    }


def _show_journey(journey: Journey) -> None:
    _out.print("  sent to hub transactions (unmodified azure-eventhub SDK):")
    _out.print_json(journey.sent, indent=4)
    _out.print(f"  GET {journey.url}", soft_wrap=True)
    _out.print(f"  -> {journey.status} after {journey.seconds * 1000:.0f} ms")
    _out.print_json(journey.answer if journey.arrived else json.dumps(journey.answer), indent=4)


def _send_malformed(app_settings: dict[str, str], storage: str) -> dict[str, Any] | None:
    send("transactions", [MALFORMED], app_settings)
    _out.print(f"  sent: {MALFORMED.decode()}", markup=False, soft_wrap=True)
    deadline = time.monotonic() + _WAIT_S
    with BlobServiceClient.from_connection_string(storage) as service:
        container = service.get_container_client("dead-letters")
        while time.monotonic() < deadline:
            for name in container.list_blob_names():
                letter: dict[str, Any] = json.loads(container.download_blob(name).readall())
                _out.print(f"  dead letter {name}", soft_wrap=True)
                _out.print(f"  reason: {letter['reason']}", markup=False)
                return letter
            time.sleep(0.1)
    _out.print("  no dead letter came", style="red")
    return None


def _show(service: Service, step: Step) -> None:
    _out.print(f"  {service.name:<10} {step}", markup=False)


def _ports(settings: TwinSettings) -> str:
    usual = TwinSettings().ports()
    return " ".join(f"TWIN_PORT_{k.upper()}={v}" for k, v in settings.ports().items() if v != usual[k])


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return int(trial.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
