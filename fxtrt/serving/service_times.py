"""Measures how long a model takes for a batch, by the images in it and the threads that call it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

import torch

from ..errors import SettingsError
from .lane import Lane, Model
from .simulation import ServiceTimes

__all__ = ["measure_service_times"]

_WARM_UP_CALLS = 2
_FEWEST_CALLS = 3
_Key = tuple[int, int]


def measure_service_times(
    model: Model,
    images: Sequence[Any],
    *,
    batches: Sequence[int] = (1,),
    workers: Sequence[int] = (1,),
    seconds: float = 1.0,
    device: torch.device | None = None,
    answers_on: str | None = "cpu",
) -> ServiceTimes:
    """Call the model in a closed loop, as a server's threads do, and return the mean times.

    The way of images to the device and of answers back is part of the time.

    Args:
        images: what a batch is made of, in turns.
        seconds: how long each number of images and threads is measured, after a short warm-up.
        device: where the model runs, as for `Server`.

    Raises:
        SettingsError: there is no image, or nothing to measure.
    """
    if not images:
        raise SettingsError("there is no image to measure with")
    found: dict[_Key, float] = {}
    for threads in workers:
        lanes = [Lane(model, device, answers_on) for _ in range(threads)]
        for batch in batches:
            taken = [images[i % len(images)] for i in range(batch)]
            found[batch, threads] = _mean_seconds(lanes, taken, seconds)
    return ServiceTimes(found)


def _mean_seconds(lanes: Sequence[Lane], batch: list[Any], seconds: float) -> float:
    """Return the mean seconds of a batch while all lanes run."""
    ready, stop = threading.Barrier(len(lanes) + 1), threading.Event()
    loops = [_Loop(lane, batch) for lane in lanes]
    threads = [threading.Thread(target=loop.run, args=(ready, stop)) for loop in loops]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        ready.wait()
        stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    for loop in loops:
        if loop.failure is not None:
            raise loop.failure
    return fmean(one for loop in loops for one in loop.seconds)


class _Loop:
    """One thread that runs a batch again and again."""

    def __init__(self, lane: Lane, batch: list[Any]) -> None:
        self._lane, self._batch = lane, batch
        self.seconds: list[float] = []
        self.failure: BaseException | None = None

    def run(self, ready: threading.Barrier, stop: threading.Event) -> None:
        try:
            nothing = [None] * len(self._batch)
            for _ in range(_WARM_UP_CALLS):
                self._lane.run(self._batch, nothing)
            ready.wait()
            while len(self.seconds) < _FEWEST_CALLS or not stop.is_set():
                began = time.perf_counter()
                self._lane.run(self._batch, nothing)
                self.seconds.append(time.perf_counter() - began)
        except threading.BrokenBarrierError:
            pass  # Another thread failed, and its error is the one to tell.
        except BaseException as error:
            self.failure = error
            stop.set()
            ready.abort()
