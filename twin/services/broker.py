"""The twin's Event Hubs broker as a service."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from twin.broker.probe import ProbeFailed, probe
from twin.services.service import Problem, Service, TlsFiles
from twin.services.settings import HOST, HUB_KEY, HUB_KEY_NAME, HUBS, TwinSettings

RETENTION_HOURS = 24


def broker_service(
    settings: TwinSettings, tls: TlsFiles | None = None, tokens: Mapping[str, Any] | None = None
) -> Service:
    """The broker with the product's hubs; with `tls` and `tokens` also for keyless clients on the AMQPS port."""
    folder = settings.root / "broker"
    config_file = folder / "config.json"
    ports = {"amqp": settings.amqp}
    config: dict[str, Any] = {
        "host": HOST,
        "port": settings.amqp,
        "data_dir": str(folder / "data"),
        "hubs": [
            {"name": name, "partitions": partitions, "consumer_groups": list(groups)}
            for name, (partitions, groups) in HUBS.items()
        ],
        "keys": [{"name": HUB_KEY_NAME, "key": HUB_KEY}],
        "retention_hours": RETENTION_HOURS,
    }
    if tls is not None:
        config["tls"] = {"port": settings.amqps, "certificate": str(tls.certificate), "key": str(tls.key)}
        ports["amqps"] = settings.amqps
    if tokens is not None:
        config["tokens"] = dict(tokens)
    text = json.dumps(config, indent=2)

    def prepare() -> None:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        config_file.write_text(text, encoding="utf-8")

    return Service(
        name="broker",
        ports=ports,
        command=[sys.executable, "-m", "twin.broker", "--config", str(config_file)],
        probe=lambda: _problem(settings.amqp),
        log=settings.root / "logs" / "broker.log",
        cwd=settings.root,
        prepare=prepare,
        urls={"event hubs": f"sb://{HOST}:{settings.amqp}"},
        identity_of=text,
    )


def _problem(port: int) -> Problem:
    try:
        probe(HOST, port, timeout_s=2)
    except ProbeFailed as error:
        return f"no answer from sb://{HOST}:{port} ({error})"
    return ""
