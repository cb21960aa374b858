"""Outcomes that are kept: a run goes on where it was cut off, and trusts no outcome of other code."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from benchmarks import drift_outcomes
from benchmarks.drift_outcomes import Outcome, digest, outcomes, sources

HOUR_S = 3_600.0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of two modules, one of which imports the other, and of one that nobody imports."""
    for name, text in (
        ("__init__", ""),
        ("made", "import numpy\nfrom benchmarks.taken import value\n"),
        ("taken", "value = 1\n"),
        ("other", "value = 2\n"),
    ):
        path = tmp_path / "benchmarks" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(drift_outcomes, "ROOT", tmp_path)
    monkeypatch.setattr(drift_outcomes, "KEPT", tmp_path / "kept")
    return tmp_path / "benchmarks"


def test_the_sources_of_a_module_are_all_that_it_imports(project: Path) -> None:
    assert sources("benchmarks.made") == {project / "made.py", project / "taken.py"}
    assert sources("numpy") == set()


def test_the_digest_follows_what_is_imported_and_nothing_else(project: Path) -> None:
    before = digest("benchmarks.made")
    (project / "other.py").write_text("value = 3\n", encoding="utf-8")
    assert digest("benchmarks.made") == before
    (project / "taken.py").write_text("value = 4\n", encoding="utf-8")
    assert digest("benchmarks.made") != before


class World:
    """Makes outcomes and remembers of which seeds; one of them may fail."""

    def __init__(self, fails: int = 0) -> None:
        self.seeds: list[int] = []
        self.fails = fails

    def make(self, seed: int, factor: int = 1) -> Outcome:
        self.seeds.append(seed)
        if seed == self.fails:
            raise RuntimeError("cut off")
        return {"found": seed * factor, "delay": None}


def run(world: World, until_s: float, factor: int = 1) -> dict[int, Outcome]:
    """Four seeds by one worker."""
    with ThreadPoolExecutor(1) as pool:
        return outcomes(f"x{factor}", partial(world.make, factor=factor), (1, 2, 3, 4), pool, until_s)


@pytest.mark.usefixtures("project")
def test_a_run_that_was_cut_off_goes_on() -> None:
    first = World(fails=3)
    with pytest.raises(RuntimeError, match="cut off"):
        run(first, time.monotonic() + HOUR_S)
    second = World()
    found = run(second, time.monotonic() + HOUR_S)
    assert found == {seed: {"found": seed, "delay": None} for seed in (1, 2, 3, 4)}
    assert 3 in second.seeds
    assert not {1, 2} & set(second.seeds), "those were kept"
    third = World()
    assert run(third, time.monotonic() + HOUR_S) == found
    assert third.seeds == []
    assert run(World(), time.monotonic() + HOUR_S, factor=2)[4]["found"] == 8, "other figures are kept apart"


@pytest.mark.usefixtures("project")
def test_out_of_time_no_world_is_begun_and_what_was_kept_is_told() -> None:
    with pytest.raises(RuntimeError, match="cut off"):
        run(World(fails=2), time.monotonic() + HOUR_S)
    late = World()
    assert run(late, time.monotonic() - 1.0) == {1: {"found": 1, "delay": None}}
    assert late.seeds == []


@pytest.mark.usefixtures("project")
def test_what_another_code_made_is_not_taken(project: Path) -> None:
    module = World.make.__module__
    path = project.parent / (module.replace(".", "/") + ".py")
    assert not path.exists(), "the digest of this module is that of no file"
    kept = drift_outcomes.KEPT / f"x1-{digest(module)}"
    kept.mkdir(parents=True)
    (kept / "1.json").write_text(json.dumps({"found": -1, "delay": 7}), encoding="utf-8")
    assert run(World(), time.monotonic() + HOUR_S)[1]["found"] == -1
    kept.rename(kept.with_name("x1-of-other-code"))
    assert run(World(), time.monotonic() + HOUR_S)[1]["found"] == 1
