"""Shows the progress of builds, and the time that they will still take, on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["BuildProgress"]

_PATIENCE_SECONDS = 2.0


class BuildProgress:
    """Shows a bar on standard error if that is a terminal and the builds take over two seconds.

    Any thread may update it.
    """

    def __init__(self, sizes: Sequence[int], clock: Callable[[], float] = time.monotonic) -> None:
        """Expect a build for each of `sizes`, which are proportional to the work of the builds."""
        self._sizes = sizes
        self._done = [0.0] * len(sizes)
        self._clock = clock
        self._start = clock()
        self._lock = threading.Lock()
        self._bar: tuple[Progress, TaskID] | None = None

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar[0].stop()

    def update(self, number: int, fraction: float) -> None:
        """Record that `fraction` (0..1) of the build of cluster `number` is done."""
        with self._lock:
            self._done[number] = fraction
            if self._bar is None and self._is_wanted():
                self._bar = _start_bar(sum(self._sizes))
            if self._bar is not None:
                bar, task = self._bar
                finished = sum(done >= 1 for done in self._done)
                completed = sum(d * size for d, size in zip(self._done, self._sizes, strict=True))
                bar.update(
                    task,
                    completed=completed,
                    description=f"building engines: {finished} of {len(self._sizes)}",
                )

    def _is_wanted(self) -> bool:
        return self._clock() - self._start > _PATIENCE_SECONDS and sys.stderr.isatty()


def _start_bar(total: float) -> tuple[Progress, TaskID]:
    # rich is imported here, because it would make importing fxtrt slower.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("", total=total)
