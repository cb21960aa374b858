"""Settings, exit codes, and who may use a data directory."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.broker.support import HUB, ROOT, BrokerProcess, settings
from twin.broker import config
from twin.broker.config import ConfigInvalid


def run(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "twin.broker", "--config", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def write(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(document))
    return path


def test_defaults(tmp_path: Path) -> None:
    loaded = config.parse(settings(tmp_path))
    assert (loaded.host, loaded.max_connections) == ("127.0.0.1", 500)
    assert loaded.limits.retention_ms == 24 * 3600 * 1000
    assert loaded.limits.segment_bytes == 64 * 1024 * 1024
    assert not loaded.limits.group_commit
    assert loaded.tls is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"host": "0.0.0.0"}, "host: must be a loopback address"),
        ({"host": "example.org"}, "host: must be a loopback address"),
        ({"port": 70000}, "port: must be a whole number from 0 to 65535"),
        ({"port": True}, "port: must be a whole number"),
        ({"data_dir": ""}, "data_dir: must be text"),
        ({"hubs": []}, "hubs: must name at least one hub"),
        ({"hubs": [{"name": "a/b", "partitions": 1}]}, "hubs[0].name: must be 1 to 256"),
        ({"hubs": [{"name": "..", "partitions": 1}]}, "hubs[0].name: must be 1 to 256"),
        ({"hubs": [{"name": "a", "partitions": 0}]}, "hubs[0].partitions: must be a whole number from 1 to 1024"),
        (
            {"hubs": [{"name": "a", "partitions": 1}, {"name": "A", "partitions": 1}]},
            "hubs[1].name: 'A' is there twice",
        ),
        ({"hubs": [{"name": "a", "partitions": 1, "consumer_groups": ["x/y"]}]}, "hubs[0].consumer_groups[0]: must be"),
        ({"hubs": [{"name": "a", "partitions": 1, "color": 1}]}, "hubs[0].color: is not a known setting"),
        ({"hubs": {}}, "hubs: must be a list"),
        ({"keys": []}, "keys: must not be empty unless tokens are configured"),
        ({"keys": [{"name": "a"}]}, "keys[0].key: must be text"),
        ({"retention_hours": 0}, "retention_hours: must be a number above 0"),
        ({"idle_timeout_s": "long"}, "idle_timeout_s: must be a number above 0"),
        ({"retention_bytes": 10}, "retention_bytes: must be a whole number from 67108864"),
        ({"segment_bytes": 1}, "segment_bytes: must be a whole number from 4096"),
        ({"fsync": True}, 'fsync: must be false or "group"'),
        ({"tls": {"port": 1, "certificate": "/nowhere/c", "key": "/nowhere/k"}}, "tls.certificate: there is no file"),
        ({"tokens": {"issuer": "i", "audience": []}}, "tokens.audience: must be a list of texts"),
        ({"tokens": 5}, "tokens: must be a JSON object"),
        ({"retention": 1}, "retention: is not a known setting"),
    ],
)
def test_each_problem_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        config.parse({**settings(tmp_path), **change})
    assert any(found.startswith(problem) for found in caught.value.problems), caught.value.problems


def test_all_problems_are_told_at_once_with_exit_code_2(tmp_path: Path) -> None:
    done = run(write(tmp_path, {"host": "10.0.0.1", "port": -1, "hubs": [{"name": "?", "partitions": 0}]}))
    assert done.returncode == 2
    fields = ("host:", "port:", "data_dir:", "hubs[0].name:", "hubs[0].partitions:", "keys:")
    assert all(f"twin.broker: {field}" in done.stderr for field in fields), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["{", "[]", "5"])
def test_a_file_that_is_no_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    done = run(path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert run(tmp_path / "absent.json").returncode == 2


def test_a_taken_port_is_named_with_exit_code_3(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run(write(tmp_path, settings(tmp_path / "data", port=port)))
    assert done.returncode == 3
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_broker_per_data_directory(broker: BrokerProcess, tmp_path: Path) -> None:
    done = run(write(tmp_path, settings(broker.data_dir)))
    assert done.returncode == 4
    assert f"another broker uses {broker.data_dir}" in done.stderr


def test_hubs_and_partitions_may_grow_and_not_shrink(tmp_path: Path) -> None:
    def hubs(**partitions: int) -> dict[str, Any]:
        return {"hubs": [{"name": name, "partitions": count} for name, count in partitions.items()]}

    def starts(**partitions: int) -> None:
        broker = BrokerProcess(tmp_path, hubs(**partitions)).start()
        try:
            names = {name: broker.data_dir / "hubs" / name for name in partitions}
            assert all(len(list(names[name].iterdir())) == count for name, count in partitions.items())
            broker.send([f"in {partitions}"], partition_id="0")
        finally:
            assert broker.stop() == 0

    starts(tx=2)
    starts(tx=3, more=1)
    for smaller, text in (
        ({"tx": 2, "more": 1}, "hub 'tx' has 3 partitions with data; the configuration names 2"),
        ({"tx": 3}, "hub 'more' has 1 partitions with data; the configuration names no such hub"),
    ):
        done = run(write(tmp_path, settings(tmp_path / "data", **hubs(**smaller))))
        assert done.returncode == 2
        assert text in done.stderr


def test_a_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    tls = {"port": 0, "certificate": str(junk), "key": str(junk)}
    done = run(write(tmp_path, settings(tmp_path / "data", tls=tls)))
    assert done.returncode == 2
    assert "tls: the certificate or key cannot be used" in done.stderr


def test_damage_is_named_with_exit_code_4(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path).start()
    broker.send([f"event {number}" for number in range(50)], partition_id="1")
    assert broker.stop() == 0
    (path,) = (broker.data_dir / "hubs" / HUB / "1").glob("*.log")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = run(broker.write_config())
    assert done.returncode == 4
    assert f"{path}: record " in done.stderr
    assert "the checksum does not match" in done.stderr
