"""The timers that train: each firing connects anew, failures are raised, and the host gives them time enough."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import azure.functions as func
import pytest

from shared.domain.errors import BrokenInvariant, Transient
from shared.entrypoints.retrain_timers import RetrainParts, daily, poll, retrain_timers
from shared.settings import RetrainSettings

HOST = Path(__file__).resolve().parents[3] / "functions" / "retrain" / "host.json"


class FakeTimer(func.TimerRequest):
    """A firing in time."""


@dataclass
class App:
    """Counts what is opened and asked; `fault` is raised by what is named in `faulty`, by all where nothing is."""

    outcome: str = ""
    settled: str = ""
    fault: Exception | None = None
    faulty: str = ""
    opened: int = 0
    closed: int = 0
    asked: list[str] = field(default_factory=list)

    def daily(self) -> str:
        return self._asked("daily", self.outcome)

    def poll(self) -> str:
        return self._asked("poll", self.outcome)

    def settle(self) -> str:
        return self._asked("settle", self.settled)

    @contextmanager
    def open(self) -> Iterator[Any]:
        self.opened += 1
        try:
            yield self
        finally:
            self.closed += 1

    def parts(self, *, tried: bool = True) -> RetrainParts:
        opening = cast("Any", self.open)
        return RetrainParts(opening, opening if tried else None)

    def _asked(self, what: str, answer: str) -> str:
        self.asked.append(what)
        if self.fault is not None and self.faulty in ("", what):
            raise self.fault
        return answer


def test_the_day_is_told_whatever_came_of_it(caplog: pytest.LogCaptureFixture) -> None:
    app = App("cooldown until tomorrow")
    with caplog.at_level(logging.INFO):
        daily(FakeTimer(), app.parts())
    assert (app.asked, app.opened, app.closed) == (["daily"], 1, 1)
    assert "cooldown until tomorrow" in caplog.text


def test_a_poll_ends_the_trial_before_it_looks_for_triggers(caplog: pytest.LogCaptureFixture) -> None:
    app = App("", "promoted: it did well")
    with caplog.at_level(logging.INFO):
        poll(FakeTimer(), app.parts())
    assert (app.asked, app.opened, app.closed) == (["settle", "poll"], 2, 2)
    assert "promoted: it did well" in caplog.text


def test_a_poll_without_anything_to_do_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    with caplog.at_level(logging.INFO):
        poll(FakeTimer(), app.parts(tried=False))
    assert app.asked == ["poll"]
    assert not caplog.text


def test_a_failure_is_raised_and_connections_are_closed() -> None:
    app = App(fault=Transient("down"))
    with pytest.raises(Transient):
        daily(FakeTimer(), app.parts())
    with pytest.raises(Transient):
        poll(FakeTimer(), app.parts())
    assert app.opened == app.closed == 3


def test_a_trial_that_cannot_be_looked_at_keeps_no_trigger_waiting(caplog: pytest.LogCaptureFixture) -> None:
    app = App("promoted", fault=BrokenInvariant("a decision cannot be read"), faulty="settle")
    with caplog.at_level(logging.INFO), pytest.raises(BrokenInvariant):
        poll(FakeTimer(), app.parts())
    assert (app.asked, app.opened, app.closed) == (["settle", "poll"], 2, 2)
    assert "triggers looked at" in caplog.text


def test_the_timers_fire_as_settings_say() -> None:
    unused = cast("Any", lambda: App().parts())
    functions = {
        one.get_function_name(): one.get_dict_repr()["bindings"][0]["schedule"]
        for one in (built.build(func.AuthLevel.FUNCTION) for built in retrain_timers(unused)._function_builders)
    }
    assert functions == {"train_daily": "%DAILY_TRAINING_SCHEDULE%", "answer_triggers": "%TRIGGER_POLL_SCHEDULE%"}


def test_a_training_is_given_up_before_the_host_ends_it() -> None:
    hours, minutes, seconds = map(int, json.loads(HOST.read_text(encoding="utf-8"))["functionTimeout"].split(":"))
    limit = RetrainSettings.model_fields["training_limit_s"]
    most = next(bound.le for bound in limit.metadata if hasattr(bound, "le"))
    assert limit.default < most < hours * 3600 + minutes * 60 + seconds
