"""The demo of drift takes only signed notices, says what did not hold, and changes what it says it changes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import numpy as np
import pytest

from shared.adapters.webhook_channel import signature_of
from twin.demo_drift import FACTOR, LIVE_DAYS, QUIET_DAYS, SECRET, Inbox, problems, scene
from twin.demo_scene import Scene, Shape

NOW_US = 1_795_000_000_000_000


def post(address: str, body: bytes, secret: str) -> int:
    headers = {"Tollgate-Timestamp": "1700000000"}
    headers["Tollgate-Signature"] = signature_of(secret.encode(), "1700000000", body)
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_only_what_is_signed_arrives() -> None:
    body = json.dumps({"title": "Drift"}).encode()
    with Inbox().open() as inbox:
        assert post(inbox.address, body, "another") == 401
        assert post(inbox.address, body, SECRET) == 204
        assert [notice["title"] for notice in inbox.notices] == ["Drift"]


def test_amounts_change_after_the_quiet_days_and_nothing_before() -> None:
    changed = scene(20, NOW_US)
    usual = Scene(20, NOW_US, 0.6, Shape(live_days=LIVE_DAYS))
    pairs = zip(
        changed._world.days(105, LIVE_DAYS),  # the days themselves: what is sent of them is shuffled
        usual._world.days(105, LIVE_DAYS),
        strict=True,
    )
    for day, (ours, theirs) in enumerate(pairs):
        factor = np.median(ours.amount_minor) / np.median(theirs.amount_minor)
        assert factor == pytest.approx(FACTOR if day >= QUIET_DAYS else 1.0, rel=0.02)


def test_what_does_not_hold_is_said() -> None:
    good = {"false_alarms": 0, "alarms": 3, "triggers": [{}], "notices": 1}
    assert problems(good) == []
    assert problems(good | {"false_alarms": 2}) == ["2 false alarms in the quiet days"]
    assert len(problems(good | {"alarms": 0, "triggers": [], "notices": 0})) == 3
