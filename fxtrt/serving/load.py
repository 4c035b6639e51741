"""Sends images at random moments without waiting for answers, and measures what comes back."""

from __future__ import annotations

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

from ..errors import QueueFull, ServingError, SettingsError

__all__ = ["Measured", "Sweep", "arrivals", "highest_rate", "run_load", "shortest_load"]

Submit = Callable[[Any], "Future[Any]"]

_ANSWER_SECONDS = 120.0
"""How long answers are waited for after the last request."""
_KEEPS_UP = 0.9
"""The share of the requests that must be answered while requests still come: below, the queue only
grew."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of the requests of one rate, after the warm-up.

    rate:      requests in a second that were asked for.
    seconds:   how long requests came.
    sent:      how many came.
    latencies: the seconds from the moment when each answered request was due until its answer,
               sorted. A sender that is late makes them longer, not fewer.
    kept_up:   the share of the requests that were answered while requests still came, 0..1.
    refused:   requests that met a full queue.
    failed:    how many requests ended with each other error, by its name.
    late:      the seconds by which the sender was late for 95 % of the requests at most.
    answers:   some requests, as pairs of the index of the image and the answer.
    """

    rate: float
    seconds: float
    sent: int
    latencies: Sequence[float]
    kept_up: float = 1.0
    refused: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    late: float = 0.0
    answers: Sequence[tuple[int, Any]] = ()

    def percentile(self, share: float) -> float:
        """Return the latency in seconds that `share` (0..1) of the answered requests keep."""
        if not self.latencies:
            return math.inf
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    @property
    def mean(self) -> float:
        """Return the mean latency in seconds."""
        return fmean(self.latencies) if self.latencies else math.inf

    @property
    def throughput(self) -> float:
        """Return the images in a second that were answered while requests still came."""
        return self.kept_up * self.sent / self.seconds

    def collapse(self, p99: float) -> str | None:
        """Return why this rate is too much for a bound of `p99` seconds, or None if it is not."""
        if self.failed:
            return "errors: " + ", ".join(f"{n} {name}" for name, n in self.failed.items())
        if self.refused:
            return f"{self.refused} of {self.sent} requests were refused"
        if self.kept_up < _KEEPS_UP:
            return f"only {self.kept_up:.0%} of the requests were answered in time"
        if self.percentile(0.99) > p99:
            return f"p99 of {1e3 * self.percentile(0.99):.1f} ms is above {1e3 * p99:g} ms"
        return None


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the moments of Poisson arrivals in 0..seconds; `simulate` makes the same."""
    rng, now, moments = random.Random(seed), 0.0, list[float]()
    while (now := now + rng.expovariate(rate)) < seconds:
        moments.append(now)
    return moments


def run_load(
    submit: Submit,
    images: Sequence[Any],
    rate: float,
    *,
    seconds: float,
    warm_up: float = 1.0,
    seed: int = 0,
    keep: int = 0,
) -> Measured:
    """Send images in turns at the moments of Poisson arrivals, and wait for what was sent.

    The next request never waits for an answer. The same seed gives the same moments.

    Args:
        submit: `Server.submit`, or any function that returns at once with a Future.
        rate: requests in a second.
        seconds: how long requests are sent and measured, after `warm_up` seconds of sending.
        keep: how many answers to keep, spread over all requests.

    Raises:
        SettingsError: a number makes no sense, or there is no image.
        ServingError: some requests had no outcome two minutes after the last was sent.
    """
    if not (0.0 < rate < math.inf and 0.0 < seconds < math.inf and 0.0 <= warm_up < math.inf):
        raise SettingsError(
            f"rate and seconds must be above 0 and warm_up 0 or more, not {rate!r}, {seconds!r} "
            f"and {warm_up!r}"
        )
    if not images:
        raise SettingsError("there is no image to send")
    moments = arrivals(rate, warm_up + seconds, seed)
    return _Run(submit, images, moments, warm_up, keep).measured(rate, seconds, warm_up)


class _Run:
    """Sends requests, and collects their outcomes in whatever thread settles them."""

    def __init__(
        self,
        submit: Submit,
        images: Sequence[Any],
        moments: Sequence[float],
        warm_up: float,
        keep: int,
    ) -> None:
        self._submit, self._images, self._moments = submit, images, moments
        self._first = sum(moment < warm_up for moment in moments)
        counted = len(moments) - self._first
        self._every = _spacing(counted, keep, len(images)) if keep else 0
        self._keep = keep
        # One place for each request, so that threads need no lock to write.
        self._ended: list[float | None] = [None] * len(moments)
        self._errors: list[str | None] = [None] * len(moments)
        self._late: list[float] = []
        self._answers: list[tuple[int, Any]] = []
        self._open = threading.Semaphore(0)

    def measured(self, rate: float, seconds: float, warm_up: float) -> Measured:
        began = self._send()
        self._wait()
        counted = range(self._first, len(self._moments))
        errors = Counter(e for i in counted if (e := self._errors[i]) is not None)
        refused = errors.pop(QueueFull.__name__, 0)
        ended = [
            None if error is not None or moment is None else moment - began
            for error, moment in zip(self._errors, self._ended, strict=True)
        ]
        # Some of the last requests cannot be answered before the end. As many of the warm-up are
        # answered after its end instead.
        begin, end = warm_up, warm_up + seconds
        in_time = sum(begin <= moment <= end for moment in ended if moment is not None)
        late = sorted(self._late[self._first :])
        return Measured(
            rate,
            seconds,
            len(counted),
            sorted(moment - self._moments[i] for i in counted if (moment := ended[i]) is not None),
            min(1.0, in_time / len(counted)) if counted else 1.0,
            refused,
            dict(errors),
            late[int(0.95 * len(late))] if late else 0.0,
            self._answers[: self._keep],
        )

    def _send(self) -> float:
        """Send all requests, each at its moment; return when the first moment was counted from."""
        began = time.perf_counter()
        for number, moment in enumerate(self._moments):
            left = began + moment - time.perf_counter()
            if left > 0.0:
                time.sleep(left)
            self._late.append(max(0.0, time.perf_counter() - began - moment))
            image = self._images[number % len(self._images)]
            try:
                future = self._submit(image)
            except ServingError as error:
                self._note(number, error)
                continue
            future.add_done_callback(partial(self._done, number))
        return began

    def _done(self, number: int, future: Future[Any]) -> None:
        error = CancelledError() if future.cancelled() else future.exception()
        counted = number - self._first
        if error is None and self._every and counted >= 0 and counted % self._every == 0:
            self._answers.append((number % len(self._images), future.result()))
        self._note(number, error)

    def _note(self, number: int, error: BaseException | None) -> None:
        if error is not None:
            self._errors[number] = type(error).__name__
        self._ended[number] = time.perf_counter()
        self._open.release()

    def _wait(self) -> None:
        end = time.monotonic() + _ANSWER_SECONDS
        for _ in self._moments:
            if not self._open.acquire(timeout=max(0.0, end - time.monotonic())):
                left = sum(ended is None for ended in self._ended)
                raise ServingError(f"{left} requests had no outcome after {_ANSWER_SECONDS:g} s")


def _spacing(count: int, keep: int, images: int) -> int:
    """Return how far apart `keep` of `count` requests are, so that they are of all images."""
    spacing = max(1, count // keep)
    while math.gcd(spacing, images) > 1:
        spacing -= 1
    return spacing


@dataclass(frozen=True, slots=True)
class Sweep:
    """The rates that were tried until the load was too much, and beyond.

    points: what was measured, in the order of the rates.
    p99:    the bound in seconds.
    """

    points: Sequence[Measured]
    p99: float

    @property
    def best(self) -> Measured | None:
        """Return the highest rate below the first that was too much; None if all were."""
        found = None
        for point in self.points:
            if point.collapse(self.p99) is not None:
                return found
            found = point
        return found


def shortest_load(p99: float, close: float = 0.05) -> float:
    """Return how many seconds of requests show that a rate is a little too much.

    If the rate is above what can be answered by the share `close`, the last request waits for that
    share of the time in which requests came. That must be more than the bound `p99` in seconds.
    """
    return p99 / close


def highest_rate(
    measure: Callable[[float], Measured],
    first: float,
    p99: float,
    *,
    step: float = 1.3,
    close: float = 0.05,
    most_points: int = 12,
) -> Sweep:
    """Raise the rate until p99 is above its bound or requests are lost; then look in between.

    Args:
        measure: measures one rate.
        first: the rate to begin with. If it is too much, lower ones follow.
        step: the factor between rates on the way up.
        close: the search ends when the rate that is too much is so little above the one that is
            not, as a share.
        most_points: the most rates to measure.
    """
    tried: list[Measured] = []
    low, high = 0.0, math.inf
    rate: float | None = first
    while rate is not None and len(tried) < most_points:
        tried.append(measure(rate))
        if tried[-1].collapse(p99) is None:
            low = max(low, rate)
        else:
            high = min(high, rate)
        rate = _next_rate(low, high, step, close)
    return Sweep(sorted(tried, key=lambda point: point.rate), p99)


def _next_rate(low: float, high: float, step: float, close: float) -> float | None:
    """Return the rate to measure between the highest good and the lowest bad one, or None."""
    if high == math.inf:
        return low * step
    if low == 0.0:
        return high / 2
    return (low + high) / 2 if high > low * (1.0 + close) else None
