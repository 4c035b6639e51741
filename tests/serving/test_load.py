"""The load generator sends at the moments that it says, and counts what becomes of each request."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

import fxtrt
from fxtrt.errors import QueueFull, SettingsError
from fxtrt.serving.load import Measured, arrivals, highest_rate, run_load


def answered(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def test_arrivals_are_at_random_and_repeatable() -> None:
    moments = arrivals(200.0, 50.0, seed=3)
    assert moments == arrivals(200.0, 50.0, seed=3) != arrivals(200.0, 50.0, seed=4)
    assert len(moments) == pytest.approx(200 * 50, rel=0.04)
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)
    assert math.sqrt(variance) == pytest.approx(mean, rel=0.05)  # as of exponential gaps


def test_sending_never_waits_for_answers() -> None:
    asked: list[Future[Any]] = []
    count = len(arrivals(100.0, 0.5, seed=0))

    def submit(image: Any) -> Future[Any]:
        asked.append(Future())
        if len(asked) == count:
            for future in asked:
                future.set_result(None)
        return asked[-1]

    found = run_load(submit, [0], 100.0, seconds=0.5, warm_up=0.0)
    assert found.sent == len(found.latencies) == count
    # The first was due half a second before all were answered.
    assert found.latencies[-1] > 0.4
    assert found.collapse(0.1) is not None


def test_a_late_sender_makes_latencies_longer() -> None:
    def slow(image: Any) -> Future[Any]:
        time.sleep(0.02)
        return answered(image)

    found = run_load(slow, [0], 200.0, seconds=0.2, warm_up=0.0)
    assert found.percentile(0.99) > 0.2  # The last of 40 requests is sent after 0.8 s.
    assert found.late > 0.2


def test_outcomes_are_counted_after_the_warm_up() -> None:
    asked: list[int] = []

    def submit(image: int) -> Future[Any]:
        asked.append(image)
        if image == 1:
            raise QueueFull("full")
        future: Future[Any] = Future()
        if image == 2:
            future.set_exception(ValueError("bad"))
        elif image == 3:
            future.cancel()
        else:
            future.set_result("answer")
        return future

    found = run_load(submit, range(5), 400.0, seconds=0.4, warm_up=0.2, keep=6)
    first = len(arrivals(400.0, 0.2, seed=0))
    counts = [asked[first:].count(image) for image in range(5)]
    assert found.sent == sum(counts)
    assert found.refused == counts[1]
    assert found.failed == {"ValueError": counts[2], "CancelledError": counts[3]}
    assert len(found.latencies) == counts[0] + counts[4]
    assert 0 < len(found.answers) <= 6
    assert {image for image, _ in found.answers} <= {0, 4}
    assert {answer for _, answer in found.answers} == {"answer"}


def test_a_server_that_cannot_keep_up_is_seen() -> None:
    def model(images: list[int]) -> list[int]:
        time.sleep(0.05)
        return images

    with fxtrt.Server(model, max_batch=1, queue_size=10_000) as server:
        found = run_load(server.submit, [0], 100.0, seconds=0.4, warm_up=0.0)
    assert found.kept_up < 0.5
    assert len(found.latencies) == found.sent
    assert "answered in time" in (found.collapse(math.inf) or "")


def point(rate: float, capacity: float) -> Measured:
    latency = 0.01 if rate <= capacity else 1.0
    return Measured(rate, 1.0, 100, [latency] * 100)


@pytest.mark.parametrize("capacity", [3.0, 50.0, 777.0])
@pytest.mark.parametrize("first", [5.0, 100.0])
def test_the_highest_rate_is_found(capacity: float, first: float) -> None:
    tried: list[float] = []

    def measure(rate: float) -> Measured:
        tried.append(rate)
        return point(rate, capacity)

    sweep = highest_rate(measure, first, 0.05, most_points=40)
    assert sweep.best is not None
    assert capacity / 1.05 <= sweep.best.rate <= capacity
    assert [one.rate for one in sweep.points] == sorted(tried)
    assert len(tried) < 30


def test_a_search_ends_where_nothing_is_fast_enough() -> None:
    sweep = highest_rate(lambda rate: point(rate, 0.0), 100.0, 0.05, most_points=5)
    assert len(sweep.points) == 5
    assert sweep.best is None


def test_the_best_rate_lies_below_the_first_that_was_too_much() -> None:
    """A higher one may pass by chance."""
    points = [point(10, 20), point(20, 5), point(30, 40)]
    sweep = highest_rate(lambda rate: points[0], 1.0, 0.05, most_points=1)
    assert type(sweep)(points, 0.05).best is points[0]


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        (Measured(9, 1, 9, [0.01] * 9), None),
        (Measured(9, 1, 9, [0.01] * 9, refused=1), "1 of 9 requests were refused"),
        (Measured(9, 1, 9, [0.01] * 9, failed={"ValueError": 2}), "errors: 2 ValueError"),
        (Measured(9, 1, 9, [0.01] * 9, 0.5), "only 50% of the requests were answered in time"),
        (Measured(9, 1, 9, [0.06] * 9), "p99 of 60.0 ms is above 50 ms"),
        (Measured(9, 1, 9, []), "p99 of inf ms is above 50 ms"),
    ],
)
def test_a_collapse_says_why(measured: Measured, reason: str | None) -> None:
    assert measured.collapse(0.05) == reason


@pytest.mark.parametrize("numbers", [(0.0, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, math.nan)])
def test_numbers_that_make_no_sense_are_refused(numbers: Sequence[float]) -> None:
    with pytest.raises(SettingsError, match="must be above 0"):
        run_load(answered, [0], numbers[0], seconds=numbers[1])


def test_no_image_is_refused() -> None:
    with pytest.raises(SettingsError, match="no image"):
        run_load(answered, [], 1.0, seconds=1.0)


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    run_load(answered, [0], 100.0, seconds=0.1, warm_up=0.0)
    assert threading.active_count() == before
