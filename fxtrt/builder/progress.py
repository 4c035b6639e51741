"""Shows on a terminal how far the builds are, and how long they will still take."""

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
    """A bar on standard error, if that is a terminal, and if it all takes more than two seconds.

    Any thread may update it.
    """

    def __init__(self, sizes: Sequence[int], clock: Callable[[], float] = time.monotonic) -> None:
        """For a cluster of each of `sizes`, in any unit that is proportional to its work."""
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
        """Of cluster `number` this fraction (0..1) is done."""
        with self._lock:
            self._done[number] = fraction
            if self._bar is None and self._is_wanted():
                self._bar = _start_bar(sum(self._sizes))
            if self._bar is not None:
                bar, task = self._bar
                finished = sum(done >= 1 for done in self._done)
                bar.update(
                    task,
                    completed=sum(map(float.__mul__, self._done, map(float, self._sizes))),
                    description=f"building engines: {finished} of {len(self._sizes)}",
                )

    def _is_wanted(self) -> bool:
        return self._clock() - self._start > _PATIENCE_SECONDS and sys.stderr.isatty()


def _start_bar(total: float) -> tuple[Progress, TaskID]:
    # Here, because importing fxtrt must not take the time that importing rich takes.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("", total=total)
