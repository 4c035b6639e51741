"""Finds the slots, batches, delay and CUDA graphs with which this machine serves a model best."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tabulate import tabulate

from ..errors import SettingsError
from .lane import Model
from .load import Measured, Sweep, highest_rate, run_load, shortest_load
from .model_facts import device_of
from .server import Server
from .service_times import measure_service_times

__all__ = ["Candidate", "Ready", "Space", "Trial", "Tuned", "table", "tune"]

_EQUAL = 0.03
"""Rates that differ by no more are equal, and then the simpler candidate is chosen."""
_GAIN = 0.05
"""What a larger batch must save of the time of an image to be worth trying under load."""
_FEWEST = 100
"""The requests of each rate at least, or p99 says little; unless that took ten seconds."""
_LONGEST = 10.0
_FIRST = 0.6
"""The share of what a closed loop does that is tried first."""
_MOST_POINTS = 9


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Candidate:
    """What may be chosen; of two that are equally fast, the smaller one is simpler.

    slots and cuda_graphs are settings of the compiled model, the others of `Server`.
    """

    slots: int = 1
    max_batch: int = 1
    max_delay: float = 0.0
    cuda_graphs: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that was opened with some slots, warm.

    model:  takes a list of images, as `Server` calls it.
    images: examples to send.
    most:   the most images that it takes at once.
    """

    model: Model
    images: Sequence[Any]
    most: int


@dataclass(frozen=True, slots=True)
class Space:
    """What is tried.

    slots:  numbers of slots, rising; the sweep stops where more of them bring nothing.
    graphs: whether to record CUDA graphs: both are tried on a GPU, and none elsewhere.
    batch:  the most images in a batch, if the model takes so many.
    delays: seconds that a request may wait for others, besides 0; tried with the best of the rest.
    """

    slots: Sequence[int] = (1, 2, 4, 8)
    graphs: Sequence[bool] = field(
        default_factory=lambda: (True, False) if torch.cuda.is_available() else (False,)
    )
    batch: int = 32
    delays: Sequence[float] = (0.001, 0.005)


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of a candidate.

    rate: the highest rate of requests in a second within the bound; 0 if there is none, or if it
          was not tried under load.
    p50:  the median latency at that rate in seconds, and so `p99`.
    note: why it was not tried, or what ended the search.
    """

    candidate: Candidate
    rate: float = 0.0
    p50: float = math.nan
    p99: float = math.nan
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The trials in their order, and the candidate to serve with."""

    trials: Sequence[Trial]
    p99: float

    @property
    def chosen(self) -> Trial:
        """Return the simplest of those with the highest rate.

        Raises:
            SettingsError: none answers within the bound.
        """
        best = max(trial.rate for trial in self.trials)
        if best == 0.0:
            raise SettingsError(
                f"nothing answers 99 % of the requests within {1e3 * self.p99:g} ms here: "
                f"{self.trials[0].note}. Allow more, as with --p99 {4e3 * self.p99:g}ms"
            )
        equal = [trial for trial in self.trials if trial.rate >= best * (1.0 - _EQUAL)]
        return min(equal, key=lambda trial: trial.candidate)


def tune(
    open_model: Callable[[int, bool], Ready],
    p99: float,
    space: Space | None = None,
    *,
    seconds: float = 2.0,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> Tuned:
    """Serve a model with requests at random moments, at rising rates, for each candidate.

    Args:
        open_model: opens the model with a number of slots, with or without CUDA graphs.
        p99: the seconds within which 99 % of the requests must be answered.
        seconds: how long requests come at each rate, or longer where the bound needs it.
        tell: is called with each trial.

    Raises:
        SettingsError: a number makes no sense.
    """
    if not 0.0 < p99 < math.inf or not 0.0 < seconds < math.inf:
        raise SettingsError(f"p99 and seconds must be above 0, not {p99!r} and {seconds!r}")
    trials: list[Trial] = []
    for trial in _trials(open_model, p99, Space() if space is None else space, seconds, trials):
        trials.append(trial)
        tell(trial)
    return Tuned(trials, p99)


def table(tuned: Tuned) -> str:
    """Return all trials, with the reason for what was chosen or left out."""
    chosen = tuned.chosen
    rows = [
        [
            trial.candidate.slots,
            trial.candidate.max_batch,
            f"{1e3 * trial.candidate.max_delay:g}",
            "yes" if trial.candidate.cuda_graphs else "no",
            *(f"{n:.1f}" if n == n and n else "" for n in _numbers(trial)),
            _why(trial, chosen),
        ]
        for trial in tuned.trials
    ]
    bound = f"images/s at p99 <= {1e3 * tuned.p99:g} ms"
    headers = ["slots", "max_batch", "max_delay ms", "graphs", bound, "p50 ms", "p99 ms", ""]
    return tabulate(rows, headers=headers, disable_numparse=True)


def _numbers(trial: Trial) -> tuple[float, float, float]:
    return trial.rate, 1e3 * trial.p50, 1e3 * trial.p99


def _why(trial: Trial, chosen: Trial) -> str:
    if trial is chosen:
        return "chosen"
    if trial.rate >= chosen.rate * (1.0 - _EQUAL) and trial.rate:
        return "as fast, and not simpler"
    if trial.rate:
        return f"{1.0 - trial.rate / chosen.rate:.0%} less; then {trial.note}"
    return trial.note


def _trials(
    open_model: Callable[[int, bool], Ready],
    p99: float,
    space: Space,
    seconds: float,
    done: Sequence[Trial],
) -> Iterator[Trial]:
    for graphs in space.graphs:
        best_of_fewer = 0.0
        for number, slots in enumerate(space.slots):
            first = len(done)
            candidate = Candidate(slots=slots, cuda_graphs=graphs)
            yield from _of_slots(open_model, candidate, space.batch, p99, seconds)
            best = max((trial.rate for trial in done[first:]), default=0.0)
            if best <= best_of_fewer * (1.0 + _EQUAL):
                note = f"not tried: {slots} slots bring no more than fewer do"
                for more in space.slots[number + 1 :]:
                    yield Trial(Candidate(slots=more, cuda_graphs=graphs), note=note)
                break
            best_of_fewer = best
    best_trial = max(done, key=lambda trial: trial.rate)
    chosen = best_trial.candidate
    if not best_trial.rate or chosen.max_batch == 1 or chosen.slots == 1 or not space.delays:
        return  # A request waits for others only while another batch runs.
    ready = open_model(chosen.slots, chosen.cuda_graphs)
    for delay in space.delays:
        delayed = replace(chosen, max_delay=delay)
        yield _under_load(ready, delayed, best_trial.rate, p99, seconds)


def _of_slots(
    open_model: Callable[[int, bool], Ready],
    candidate: Candidate,
    most: int,
    p99: float,
    seconds: float,
) -> Iterator[Trial]:
    """Open the model, try its batches, and let go of it before the next one is opened."""
    ready = open_model(candidate.slots, candidate.cuda_graphs)
    yield from _of_batches(ready, candidate, min(most, ready.most), p99, seconds)
    del ready
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _of_batches(
    ready: Ready, candidate: Candidate, most: int, p99: float, seconds: float
) -> Iterator[Trial]:
    """Try batches of 1, 2, 4 and so on; those that cannot help are only timed in a closed loop."""
    per_image = math.inf
    for batch in _doubled(most):
        tried = replace(candidate, max_batch=batch)
        time = _closed_loop(ready, tried, seconds)
        if time > p99:
            note = f"a batch alone takes {1e3 * time:.1f} ms"
            yield Trial(tried, note=note)
            return
        if time / batch > per_image * (1.0 - _GAIN):
            saved = f"{1e3 * time / batch:.2f} ms an image"
            note = f"{saved}, and {1e3 * per_image:.2f} in a smaller batch"
            yield Trial(tried, note=note)
            continue
        per_image = time / batch
        yield _under_load(ready, tried, _FIRST * tried.slots / per_image, p99, seconds)


def _doubled(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]


def _closed_loop(ready: Ready, candidate: Candidate, seconds: float) -> float:
    """Return the seconds of a batch while all slots are at work."""
    key = candidate.max_batch, candidate.slots
    times = measure_service_times(
        ready.model,
        ready.images,
        batches=key[:1],
        workers=key[1:],
        seconds=seconds / 4,
        device=device_of(ready.model),
    )
    return times.seconds[key]


def _under_load(
    ready: Ready, candidate: Candidate, first: float, p99: float, seconds: float
) -> Trial:
    with Server(
        ready.model,
        name="tune",
        workers=candidate.slots,
        max_batch=candidate.max_batch,
        max_delay=candidate.max_delay,
    ) as server:

        def measure(rate: float) -> Measured:
            long = max(seconds, shortest_load(p99), min(_LONGEST, _FEWEST / rate))
            return run_load(server.submit, ready.images, rate, seconds=long, warm_up=long / 4)

        return _summary(candidate, highest_rate(measure, first, p99, most_points=_MOST_POINTS))


def _summary(candidate: Candidate, sweep: Sweep) -> Trial:
    collapsed = [one for one in sweep.points if one.collapse(sweep.p99) is not None]
    note = ""
    if collapsed:
        note = f"at {collapsed[0].rate:.1f}/s {collapsed[0].collapse(sweep.p99)}"
    if (best := sweep.best) is None:
        return Trial(candidate, note=note)
    return Trial(candidate, best.rate, best.percentile(0.5), best.percentile(0.99), note)
