"""The demo of learning reads from a log who decides, and says what did not hold."""

from __future__ import annotations

import pytest

from twin.demo_learning import champions_in, problems

OLD, NEW = "a" * 64, "b" * 64


def took_over(process: str, digest: str, role: str = "champion") -> str:
    return (
        f"2026-11-21T15:07:00.941Z INFO [{process}] shared.adapters.bundle_scorers: a bundle took over"
        f" role={role} bundle_digest={digest} model_version=3\n"
    )


@pytest.mark.parametrize(
    ("log", "champions"),
    [
        ("", set()),
        (took_over("worker-0", OLD) + took_over("worker-1", OLD), {OLD}),
        (took_over("worker-0", OLD) + took_over("worker-1", OLD) + took_over("worker-1", NEW), {OLD, NEW}),
        (took_over("worker-0", OLD) + took_over("worker-1", NEW) + took_over("worker-0", NEW), {NEW}),
        (took_over("worker-0", OLD) + took_over("worker-1.0", NEW), {NEW}),
        (took_over("worker-0", NEW) + took_over("worker-0", OLD, "shadow"), {NEW}),
    ],
    ids=["nobody", "both", "one is late", "both after another", "after a reload", "a shadow decides nothing"],
)
def test_who_decides_is_what_each_process_said_last(log: str, champions: set[str]) -> None:
    assert champions_in(log) == champions


def test_what_does_not_hold_is_said() -> None:
    good = {
        "refused": {"gain": "too little"},
        "changes": [{"role": "champion", "action": action} for action in ("accept", "promote", "rollback")],
        "epochs": [{"champion": OLD, "sent": 3, "decided": 3, "by_bundle": {OLD: 3}}],
        "replayed": 3,
        "replay_mismatches": 0,
        "log_faults": 0,
    }
    assert problems(good) == []
    assert problems(good | {"refused": {}}) == ["the bad retraining was not refused"]
    other = [{"champion": OLD, "sent": 3, "decided": 3, "by_bundle": {OLD: 2, NEW: 1}}]
    assert problems(good | {"epochs": other}) == ["another model decided"]
    assert len(problems(good | {"changes": [], "replayed": 2, "log_faults": 1})) == 3
