"""A lease that is renewed while work runs, and that is known to be lost before anything is finished under it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from shared.domain.errors import Transient
from shared.services.retraining_lease import LeaseLost, held
from tests.fakes.pipelines import FakeLeases
from tests.fakes.probes import FakeClock

SECOND = 1_000_000


@dataclass
class Ticks:
    """A monotonic clock that stands still until it is moved, with the time of day."""

    clock: FakeClock = field(default_factory=FakeClock)
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.clock.time_us += round(seconds * SECOND)


def test_it_is_held_until_it_is_left() -> None:
    leases, ticks = FakeLeases(), Ticks()
    lease = held(leases, "training", "a", ticks.clock, 120 * SECOND, monotonic_s=ticks)
    assert lease is not None
    with lease:
        lease.check()
        assert held(leases, "training", "b", ticks.clock, 120 * SECOND, monotonic_s=ticks) is None
    assert held(leases, "training", "b", ticks.clock, 120 * SECOND, monotonic_s=ticks) is not None


def test_a_renewed_lease_lasts_longer() -> None:
    leases, ticks = FakeLeases(), Ticks()
    lease = held(leases, "training", "a", ticks.clock, 120 * SECOND, monotonic_s=ticks)
    assert lease is not None
    for _ in range(5):
        ticks.advance(100)
        assert lease.renew()
        lease.check()
    assert leases.holder("training", ticks.clock.now_us() + 119 * SECOND) == "a"


def test_a_holder_that_slept_through_its_lease_knows_it_although_it_is_free_again() -> None:
    leases, ticks = FakeLeases(), Ticks()
    lease = held(leases, "training", "a", ticks.clock, 120 * SECOND, monotonic_s=ticks)
    assert lease is not None
    ticks.advance(120)
    assert leases.acquire("training", "b", ticks.clock.now_us(), SECOND)
    assert leases.release("training", "b")
    assert not lease.renew()
    with pytest.raises(LeaseLost, match="the lease training was lost"):
        lease.check()
    assert leases.holder("training", ticks.clock.now_us()) is None


def test_a_lease_that_was_taken_over_is_lost() -> None:
    leases, ticks = FakeLeases(), Ticks()
    lease = held(leases, "training", "a", ticks.clock, 120 * SECOND, monotonic_s=ticks)
    assert lease is not None
    leases.held["training"] = "b", ticks.clock.now_us() + 500 * SECOND
    ticks.advance(1)
    assert not lease.renew()
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_store_that_fails_for_a_while_loses_no_lease_before_its_end() -> None:
    leases, ticks = FakeLeases(), Ticks()
    lease = held(leases, "training", "a", ticks.clock, 120 * SECOND, monotonic_s=ticks)
    assert lease is not None
    leases.fault = Transient("down")
    ticks.advance(119)
    assert lease.renew()
    lease.check()
    ticks.advance(1)
    with pytest.raises(LeaseLost):
        lease.check()
    with lease:
        pass  # it cannot be given back, and that stops nobody


def test_a_thread_renews_it_meanwhile() -> None:
    leases, ticks = FakeLeases(), Ticks()
    # Renewed each second; by a clock that stands still it cannot end meanwhile, however late the thread is.
    lease = held(leases, "training", "a", ticks.clock, 4 * SECOND, monotonic_s=ticks)
    assert lease is not None
    with lease:
        until_s = time.monotonic() + 60
        ticks.clock.time_us += 1
        while leases.holder("training", ticks.clock.time_us + 4 * SECOND - 1) != "a":
            assert time.monotonic() < until_s, "it was never renewed"
            time.sleep(0.01)
        lease.check()
