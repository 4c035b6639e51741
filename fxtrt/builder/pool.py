"""Runs the builds of several clusters in parallel, as many as fit into memory."""

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
"""The bytes that a build needs for each byte of weights; two to three were measured."""

_WAKE_SECONDS = 0.5
"""The longest single wait. Without a timeout, a wait may miss Ctrl-C; on Windows it always does."""

T = TypeVar("T")


class BuildPool:
    """Runs builds on threads, all of which have ended when its `with` statement ends.

    TensorRT releases the GIL while it builds, so builds run in parallel, and the calling thread can
    be interrupted. An exception, such as KeyboardInterrupt, cancels waiting builds at once, and
    running ones when TensorRT next reports progress. TensorRT 8.6 reports none, so its running
    builds end first.
    """

    def __init__(self, bar: BuildProgress, most: int) -> None:
        """Allow `most` builds at once, or fewer on a machine with few processors."""
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
        """Wait until a build of a network with `weight_bytes` of weights may start."""
        while self._running and not self._has_room(weight_bytes):
            done, _ = wait(self._running, _WAKE_SECONDS, FIRST_COMPLETED)
            for future in done:
                del self._running[future]

    def submit(self, number: int, weight_bytes: int, build: Callable[[Progress], T]) -> Future[T]:
        """Start `build` for cluster `number` on a thread."""

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
        """Wait for the build of `future`, and return its result."""
        while not future.done():
            wait([future], _WAKE_SECONDS)
        return future.result()

    def _has_room(self, weight_bytes: int) -> bool:
        if len(self._running) >= self._threads:
            return False
        available = _available_bytes()
        # Running builds may not have allocated all of their memory yet, so all of it counts.
        needed = _MEMORY_PER_WEIGHT * (weight_bytes + sum(self._running.values()))
        return available is not None and needed <= available


def _available_bytes() -> int | None:
    """Return the memory that is available without swapping, or None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) << 10
