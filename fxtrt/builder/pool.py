"""Runs the builds of several clusters at once, as many as memory has room for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from ..engines.base import Progress
from .progress import BuildProgress

__all__ = ["BuildPool"]

_MOST_THREADS = 4
_MEMORY_PER_WEIGHT = 3
"""A build was seen to take two to three times the bytes of the weights in its network."""

_WAKE_SECONDS = 0.5
"""A thread that waits without end may miss an interrupt, and on Windows always does."""

T = TypeVar("T")


class BuildPool:
    """Threads for builds, within a `with` statement that leaves none of them running.

    TensorRT gives up Python's lock while it builds, so builds run side by side, and this thread
    stays free to be interrupted. An exception, such as KeyboardInterrupt, cancels the builds that
    wait at once, and those that run at TensorRT's next step (8.6 has no steps: at their end).
    """

    def __init__(self, bar: BuildProgress, most: int) -> None:
        """At most `most` builds at once, if there are that many processors and as much memory."""
        self._threads = max(1, min(most, _MOST_THREADS, os.cpu_count() or 1))
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="fxtrt build")
        self._bar = bar
        self._cancelled = threading.Event()
        self._running: dict[Future[Any], int] = {}

    def __enter__(self) -> BuildPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self._cancelled.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def wait_for_room(self, weight_bytes: int) -> None:
        """Return once another build, of a network with so many bytes of weights, may start."""
        while self._running and not self._has_room(weight_bytes):
            done, _ = wait(self._running, _WAKE_SECONDS, FIRST_COMPLETED)
            for future in done:
                del self._running[future]

    def submit(self, number: int, weight_bytes: int, build: Callable[[Progress], T]) -> Future[T]:
        """Run `build` for cluster `number` on a thread."""

        def progress(fraction: float) -> bool:
            self._bar.update(number, fraction)
            return not self._cancelled.is_set()

        def run() -> T:
            built = build(progress)
            self._bar.update(number, 1.0)
            return built

        future = self._executor.submit(run)
        self._running[future] = weight_bytes
        return future

    def result(self, future: Future[T]) -> T:
        """Return what the build of `future` gives, once it has ended."""
        while not future.done():
            wait([future], _WAKE_SECONDS)
        return future.result()

    def _has_room(self, weight_bytes: int) -> bool:
        if len(self._running) >= self._threads:
            return False
        available = _available_bytes()
        # What the running builds have not taken yet is not known, so all of it counts.
        needed = _MEMORY_PER_WEIGHT * (weight_bytes + sum(self._running.values()))
        return available is not None and needed <= available


def _available_bytes() -> int | None:
    """Return the memory that can be had without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) << 10
