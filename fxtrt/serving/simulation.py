"""Predicts the latencies of a fleet of servers from measured times of batches, event by event."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from ..errors import ServingError, SettingsError
from .batching import BatchRule, choose

__all__ = ["Fleet", "Prediction", "ServiceTimes", "gpus_needed", "simulate"]

_MOST_GPUS = 4096
_Event = Generator[Any, Any, None]


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """The seconds that a GPU takes for a batch.

    seconds: by the number of images in the batch and the number of workers that run at once.
             Between batches that were measured, times are interpolated; more workers than were
             measured take turns, as the most that were.
    """

    seconds: Mapping[tuple[int, int], float]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise SettingsError("there is no measured time of a batch")
        for (batch, workers), seconds in self.seconds.items():
            if batch < 1 or workers < 1 or not 0.0 < seconds < math.inf:
                raise SettingsError(
                    f"a batch of {batch} with {workers} workers takes {seconds!r} s: all three "
                    f"must be above 0"
                )

    def of(self, batch: int, workers: int) -> float:
        """Return the seconds of a batch that begins when so many workers run, itself included."""
        known = sorted({number for _, number in self.seconds})
        fewer = [number for number in known if number <= workers]
        measured = fewer[-1] if fewer else known[0]
        seconds = self._interpolated(batch, measured)
        return seconds * max(1.0, workers / known[-1]) if workers > known[-1] else seconds

    def _interpolated(self, batch: int, workers: int) -> float:
        points = sorted((b, s) for (b, number), s in self.seconds.items() if number == workers)
        batches = [b for b, _ in points]
        place = bisect_left(batches, batch)
        if place < len(points) and batches[place] == batch:
            return points[place][1]
        if place == 0:
            return points[0][1]
        if place == len(points):
            return points[-1][1] * batch / batches[-1]
        (b0, s0), (b1, s1) = points[place - 1], points[place]
        return s0 + (s1 - s0) * (batch - b0) / (b1 - b0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Some GPUs with a server each; the fields but `gpus` are those of `Server`."""

    gpus: int = 1
    workers: int = 1
    max_batch: int = 1
    max_delay: float = 0.0
    queue_size: int = 256
    timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("gpus", "workers", "max_batch", "queue_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more, not {getattr(self, name)!r}")
        if not 0.0 <= self.max_delay < math.inf or not self.timeout > 0.0:
            raise SettingsError("max_delay must be 0 s or more, and timeout above 0 s")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The result of a simulation.

    latencies:   the seconds of every answered request after the warm-up, sorted.
    refused:     requests that met a full queue.
    timed_out:   requests whose time was over before they ran.
    lost:        requests that were on a GPU when it failed.
    utilization: the share of the time that a GPU that works has at least one batch, 0..1.
    batch:       the mean number of images in a batch.
    """

    latencies: Sequence[float]
    refused: int = 0
    timed_out: int = 0
    lost: int = 0
    utilization: float = 0.0
    batch: float = 0.0

    def percentile(self, share: float) -> float:
        """Return the latency in seconds that `share` (0..1) of the answered requests keep."""
        if not self.latencies:
            return math.inf
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    @property
    def answers_all(self) -> bool:
        return not (self.refused or self.timed_out or self.lost)


def simulate(
    times: ServiceTimes,
    fleet: Fleet,
    rate: float,
    *,
    seconds: float = 60.0,
    warm_up: float = 5.0,
    fails_at: float | None = None,
    seed: int = 0,
) -> Prediction:
    """Simulate a fleet under Poisson arrivals; the same seed gives the same prediction.

    Each request goes to the shorter queue of two GPUs chosen at random, as Ray Serve routes.
    Batches are formed by the rule that `Server` uses.

    Args:
        rate: requests in a second, of the whole fleet.
        seconds: how long requests arrive, after the warm-up.
        fails_at: when a GPU fails for good, in seconds after the warm-up. What it runs is lost, and
            what waits there goes to the others.

    Raises:
        ServingError: simpy is not installed.
        SettingsError: a number makes no sense.
    """
    if not 0.0 < rate < math.inf or not 0.0 < seconds < math.inf:
        raise SettingsError(f"rate and seconds must be above 0, not {rate!r} and {seconds!r}")
    if fails_at is not None and fleet.gpus < 2:
        raise SettingsError("if the only GPU fails, nothing is left to simulate")
    return _Simulation(times, fleet, warm_up, seed).run(rate, seconds, fails_at)


def gpus_needed(
    times: ServiceTimes,
    fleet: Fleet,
    rate: float,
    p99: float,
    *,
    failing: int = 0,
    seconds: float = 30.0,
    seed: int = 0,
) -> int:
    """Return the fewest GPUs that answer all requests within `p99` seconds, 99 % of the time.

    Args:
        failing: how many of them may fail: the others must do it alone.

    Raises:
        SettingsError: no number of GPUs can do it, because one request alone takes too long.
    """

    def is_enough(gpus: int) -> bool:
        tried = replace(fleet, gpus=gpus)
        found = simulate(times, tried, rate, seconds=seconds, seed=seed)
        return found.answers_all and found.percentile(0.99) <= p99

    if times.of(1, 1) > p99:
        raise SettingsError(f"one image takes {times.of(1, 1):g} s, so none is within {p99:g} s")
    low, high = 0, 1
    while not is_enough(high):
        low, high = high, 2 * high
        if high > _MOST_GPUS:
            raise SettingsError(f"{_MOST_GPUS} GPUs are not enough for {rate:g} requests/s")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high + failing


@dataclass(slots=True)
class _Waiting:
    """A request, as `choose` sees it."""

    rank: tuple[float, int]
    arrived: float
    deadline: float


@dataclass(slots=True)
class _Gpu:
    line: list[_Waiting] = field(default_factory=list)
    at_work: int = 0
    busy: float = 0.0
    since: float = 0.0
    failed: bool = False
    running: dict[int, list[_Waiting]] = field(default_factory=dict)
    changed: Any = None


class _Simulation:
    def __init__(self, times: ServiceTimes, fleet: Fleet, warm_up: float, seed: int) -> None:
        self._env = _simpy().Environment()
        self._times, self._fleet, self._warm_up = times, fleet, warm_up
        self._rule = BatchRule(fleet.max_batch, fleet.max_delay)
        # Apart, so that every fleet gets the same requests.
        self._arriving, self._routing = random.Random(seed), random.Random(seed + 1)
        self._gpus = [_Gpu() for _ in range(fleet.gpus)]
        self._latencies: list[float] = []
        self._batches: list[int] = []
        self._refused = self._timed_out = self._lost = 0

    def run(self, rate: float, seconds: float, fails_at: float | None) -> Prediction:
        env, end = self._env, self._warm_up + seconds
        for gpu in self._gpus:
            gpu.changed = env.event()
            for _ in range(self._fleet.workers):
                env.process(self._worker(gpu))
        env.process(self._arrivals(rate, end))
        if fails_at is not None:
            env.process(self._failure(self._warm_up + fails_at))
        env.run(until=end + self._fleet.timeout if self._fleet.timeout < math.inf else None)
        working = [gpu for gpu in self._gpus if not gpu.failed]
        return Prediction(
            sorted(self._latencies),
            self._refused,
            self._timed_out,
            self._lost,
            min(1.0, fmean(gpu.busy for gpu in working) / end),
            fmean(self._batches) if self._batches else 0.0,
        )

    def _arrivals(self, rate: float, end: float) -> _Event:
        number = 0
        while True:
            yield self._env.timeout(self._arriving.expovariate(rate))
            now = self._env.now
            if now >= end:
                return
            number += 1
            self._route(_Waiting((now, number), now, now + self._fleet.timeout))

    def _route(self, request: _Waiting) -> None:
        working = [gpu for gpu in self._gpus if not gpu.failed]
        two = self._routing.sample(working, min(2, len(working)))
        gpu = min(two, key=lambda one: len(one.line) + one.at_work)
        if len(gpu.line) >= self._fleet.queue_size:
            self._refused += 1
            return
        gpu.line.append(request)
        self._wake(gpu)

    def _wake(self, gpu: _Gpu) -> None:
        gpu.changed.succeed()
        gpu.changed = self._env.event()

    def _worker(self, gpu: _Gpu) -> _Event:
        env = self._env
        while not gpu.failed:
            self._expire(gpu)
            if not gpu.line:
                yield gpu.changed
                continue
            _, left = choose({None: gpu.line}, self._rule, env.now, not gpu.at_work)
            if left > 0.0:
                yield gpu.changed | env.timeout(left)
                continue
            batch = gpu.line[: self._fleet.max_batch]
            del gpu.line[: len(batch)]
            yield from self._serve(gpu, batch)

    def _serve(self, gpu: _Gpu, batch: list[_Waiting]) -> _Event:
        env = self._env
        if not gpu.at_work:
            gpu.since = env.now
        gpu.at_work += 1
        gpu.running[id(batch)] = batch
        self._batches.append(len(batch))
        yield env.timeout(self._times.of(len(batch), gpu.at_work))
        if gpu.failed:
            return
        gpu.at_work -= 1
        del gpu.running[id(batch)]
        if not gpu.at_work:
            gpu.busy += env.now - gpu.since
        self._latencies += (env.now - r.arrived for r in batch if r.arrived >= self._warm_up)
        self._wake(gpu)

    def _expire(self, gpu: _Gpu) -> None:
        late = sum(request.deadline <= self._env.now for request in gpu.line)
        if late:
            self._timed_out += late
            gpu.line = [request for request in gpu.line if request.deadline > self._env.now]

    def _failure(self, at: float) -> _Event:
        yield self._env.timeout(at)
        gpu = self._gpus[0]
        gpu.failed = True
        self._lost += sum(map(len, gpu.running.values()))
        waiting, gpu.line = gpu.line, []
        self._wake(gpu)
        for request in waiting:
            self._route(request)


def _simpy() -> Any:
    try:
        import simpy
    except ImportError as error:
        raise ServingError("a simulation needs simpy: pip install 'fxtrt[serve]'") from error
    return simpy
