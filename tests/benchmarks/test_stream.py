"""The stream benchmark's own arithmetic: what it sends, and how it adds up CPU and waiting."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys

import pytest

from benchmarks.bench_stream import (
    HOT_SHARE,
    LIVE_HZ,
    Moment,
    Stretch,
    bodies,
    cpu_of_stat,
    family_cpu_s,
    own_cpu_s,
    quantile,
    spread_us,
)
from shared.domain.event import parse_object
from shared.domain.instants import US_PER_SECOND
from shared.domain.transaction import ALLOWED_LATENESS_US, Acceptance, parse_transaction

NOW_US = 1_790_000_000_000_000
SPIN = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"


def test_events_are_accepted_differ_and_a_third_is_at_one_merchant() -> None:
    acceptance = Acceptance("EUR", NOW_US, lateness_us=ALLOWED_LATENESS_US)
    made = [
        parse_transaction(parse_object(body), acceptance) for _, body in bodies("a", spread_us(3_000, LIVE_HZ, NOW_US))
    ]
    assert len({item.transaction_id for item in made}) == len(made)
    hot = sum(item.terminal_id == "m-hot" for item in made) / len(made)
    assert hot == pytest.approx(HOT_SHARE, abs=0.03)


def test_the_same_name_makes_the_same_events_and_another_makes_others() -> None:
    first, again, other = ([body for _, body in bodies(name, spread_us(50, 10, NOW_US))] for name in ("a", "a", "b"))
    assert first == again
    ids = [{json.loads(body)["transaction_id"] for body in made} for made in (first, other)]
    assert not ids[0] & ids[1]


def test_a_customer_is_named_by_its_number() -> None:
    for customer, body in itertools.islice(bodies("a", itertools.repeat(NOW_US)), 20):
        assert json.loads(body)["customer_id"] == f"c-{customer}"


def test_a_backlog_ends_now_and_rises_at_its_rate() -> None:
    times = list(spread_us(101, 50, NOW_US))
    assert times[-1] == NOW_US - US_PER_SECOND // 50
    assert times[-1] - times[0] == 2 * US_PER_SECOND


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(share: float, value: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == value


def test_without_values_there_is_no_quantile() -> None:
    assert math.isnan(quantile([], 0.5))


def test_cpu_holds_threads_and_buried_children_whatever_the_name() -> None:
    stat = "7 (a) b) (c) S " + " ".join(str(number) for number in range(4, 53))
    assert cpu_of_stat(stat, 100) == pytest.approx((14 + 15 + 16 + 17) / 100)


def test_cpu_of_a_process_and_of_its_buried_child_is_counted() -> None:
    before = family_cpu_s(os.getpid())
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert family_cpu_s(os.getpid()) - before >= 0.18


def test_a_process_that_is_gone_has_used_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert own_cpu_s(process.pid) == 0
    assert family_cpu_s(process.pid) == 0


def test_a_stretch_is_shared_out_among_its_decisions() -> None:
    first = Moment(1_000_000, 100, 10, {"host": 1.0}, 5.0)
    last = Moment(3_000_000, 1_100, 20, {"host": 2.0, "producer": 0.5}, 9.5)
    stretch = Stretch(first, last)
    assert stretch.seconds == 2
    assert stretch.decided == 1_000
    assert stretch.per_unit == 100
    assert stretch.cpu_ms() == {"host": 1.0, "producer": 0.5}
    assert stretch.others() == pytest.approx(1.5)
