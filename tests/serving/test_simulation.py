"""The simulation gives what queueing theory says, and answers how many GPUs are needed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("simpy", reason="fxtrt[serve] is not installed")

from fxtrt.errors import SettingsError
from fxtrt.serving.simulation import Fleet, ServiceTimes, gpus_needed, simulate

ONE = ServiceTimes({(1, 1): 0.01})


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_worker_waits_as_the_formula_says(load: float) -> None:
    """Arrivals at random and equal service times: W = s + load * s / (2 (1 - load))."""
    found = simulate(ONE, Fleet(queue_size=10_000), load / 0.01, seconds=600.0)
    expected = 0.01 * (1 + load / (2 * (1 - load)))
    mean = sum(found.latencies) / len(found.latencies)
    assert mean == pytest.approx(expected, rel=0.05)
    assert found.utilization == pytest.approx(load, rel=0.05)
    assert found.answers_all


def test_batches_carry_a_load_that_single_images_do_not() -> None:
    times = ServiceTimes({(1, 1): 0.010, (8, 1): 0.020})
    single = simulate(times, Fleet(), 200.0, seconds=20.0)
    batched = simulate(times, Fleet(max_batch=8), 200.0, seconds=20.0)
    assert single.refused > 0
    assert batched.answers_all
    assert batched.percentile(0.99) < 0.06
    assert 1.5 < batched.batch < 8


def test_the_same_seed_gives_the_same_prediction() -> None:
    fleet = Fleet(gpus=3, workers=2, max_batch=4, max_delay=0.002)
    times = ServiceTimes({(1, 1): 0.004, (4, 1): 0.01, (1, 2): 0.006, (4, 2): 0.016})
    first, again = (simulate(times, fleet, 500.0, seconds=5.0, seed=3) for _ in range(2))
    assert first == again
    assert first != simulate(times, fleet, 500.0, seconds=5.0, seed=4)


@settings(max_examples=30, deadline=None)
@given(
    gpus=st.integers(1, 4),
    workers=st.integers(1, 3),
    batch=st.integers(1, 8),
    queue=st.integers(1, 20),
    rate=st.floats(10, 800),
    fails=st.booleans(),
)
def test_every_request_has_one_end(
    gpus: int, workers: int, batch: int, queue: int, rate: float, fails: bool
) -> None:
    fleet = Fleet(gpus=gpus, workers=workers, max_batch=batch, queue_size=queue, timeout=0.5)
    at = 1.0 if fails and gpus > 1 else None
    found = simulate(ONE, fleet, rate, seconds=3.0, warm_up=0.0, fails_at=at)
    ends = len(found.latencies) + found.refused + found.timed_out + found.lost
    assert ends == _arrivals(rate, 3.0)
    assert all(latency >= 0.01 - 1e-9 for latency in found.latencies)
    assert found.lost <= workers * batch


def _arrivals(rate: float, seconds: float) -> int:
    """Count the requests: with a fleet that refuses nothing, all are answered."""
    fast = ServiceTimes({(1, 1): 1e-6})
    open_to_all = Fleet(queue_size=1_000_000)
    return len(simulate(fast, open_to_all, rate, seconds=seconds, warm_up=0.0).latencies)


def test_gpus_are_counted_with_one_that_fails() -> None:
    fleet = Fleet(queue_size=10_000)
    alone = gpus_needed(ONE, fleet, 450.0, p99=0.1, seconds=3.0)
    assert 5 <= alone <= 6  # 450 images of 10 ms are 4.5 GPUs at least.
    assert gpus_needed(ONE, fleet, 450.0, p99=0.1, failing=1, seconds=3.0) == alone + 1


def test_what_no_fleet_can_do_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"one image takes 0.01 s, so none is within 0.005 s"):
        gpus_needed(ONE, Fleet(), 10.0, p99=0.005)
    with pytest.raises(SettingsError, match="no measured time"):
        ServiceTimes({})
    with pytest.raises(SettingsError, match="must be above 0"):
        ServiceTimes({(1, 1): math.nan})
    with pytest.raises(SettingsError, match="nothing is left"):
        simulate(ONE, Fleet(), 1.0, fails_at=1.0)


@pytest.mark.parametrize(
    ("batch", "workers", "seconds"),
    [(1, 1, 0.004), (2, 1, 0.006), (4, 1, 0.01), (8, 1, 0.02), (1, 2, 0.006), (1, 4, 0.012)],
)
def test_times_between_and_beyond_what_was_measured(
    batch: int, workers: int, seconds: float
) -> None:
    times = ServiceTimes({(1, 1): 0.004, (4, 1): 0.01, (1, 2): 0.006, (4, 2): 0.016})
    assert times.of(batch, workers) == pytest.approx(seconds)
