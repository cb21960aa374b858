"""The second client: the unmodified npm SDK, which speaks AMQP through another library (rhea)."""

from __future__ import annotations

import json
import subprocess

from tests.broker.support import HUB, ROOT, BrokerProcess


def test_the_npm_sdk_sends_and_reads(broker: BrokerProcess) -> None:
    installed = ROOT / "tests/node/node_modules/@azure/event-hubs"
    assert installed.is_dir(), "the npm SDK is not installed: run `make setup`"
    script = ROOT / "tests/broker/client.mjs"
    command = ["node", str(script), broker.connection_string, HUB]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == []
    assert found["properties"]["partitionIds"] == ["0", "1", "2", "3"]
    assert found["partition"]["isEmpty"] is True
    events = {int(index): event for index, event in found["events"].items()}
    assert sorted(events) == list(range(501))
    assert {(events[index]["partition"], events[index]["key"]) for index in range(250)} == {("1", "card-0")}
    assert {events[index]["partition"] for index in range(250, 500)} == {"0"}
    assert all(event["source"] == "js" and event["recent"] for event in events.values())
    assert events[0]["last"] is not None
    assert isinstance(events[0]["offset"], str)
