"""Models that go wrong on demand, and a server that a test runs by hand, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from fxtrt.serving.server import Server

__all__ = [
    "FAULTS",
    "SOON",
    "ByHand",
    "Clock",
    "Faulty",
    "Gate",
    "MakeByHand",
    "Picture",
    "ask",
    "kind_of",
    "markers",
]

SOON = 20.0
"""The seconds that a test waits at most for what should come at once."""


@dataclass(frozen=True)
class Picture:
    """An image that is only a marker, with the kind that stands for its shape."""

    marker: int
    kind: str = "a"
    is_bad: bool = False


def kind_of(picture: Picture) -> str:
    """Return the key of a picture's batch."""
    return picture.kind


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _out_of_memory() -> BaseException:
    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


FAULTS: dict[str, Callable[[], BaseException]] = {
    "raises": lambda: ValueError("the whole batch fails"),
    "memory": _out_of_memory,
    "device": lambda: RuntimeError("CUDA error: device-side assert triggered"),
    "thread": lambda: SystemExit("the thread is to end"),
}
"""What a run may raise, by name."""


class Faulty:
    """Answers pictures with their markers, unless it is told to fail.

    fault:  what the next run raises; "memory" and "raises" go away once the batch is smaller.
    during: is called in the midst of the next run.
    before: is called with the markers of each run.
    runs:   the markers of all runs.
    """

    def __init__(self) -> None:
        self.before: Callable[[tuple[int, ...]], None] | None = None
        self.fault: str | None = None
        self.during: Callable[[], None] | None = None
        self.runs: list[tuple[int, ...]] = []
        self._lock = threading.Lock()

    def __call__(self, pictures: list[Picture]) -> list[Any]:
        markers = tuple(picture.marker for picture in pictures)
        if self.before is not None:
            self.before(markers)
        with self._lock:
            fault, self.fault = self.fault, None
            during, self.during = self.during, None
            self.runs.append(markers)
        if during is not None:
            during()
        if fault is not None:
            raise FAULTS[fault]()
        for picture in pictures:
            if picture.is_bad:
                raise ValueError(f"picture {picture.marker} is bad")
        return [("answer to", picture.marker) for picture in pictures]

    def count(self, marker: int) -> int:
        """Return how often the model ran with a picture."""
        return sum(marker in run for run in self.runs)


class Gate:
    """A model that stops in each run until it may go on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def __call__(self, pictures: list[Picture]) -> list[int]:
        self.batches.append([picture.marker for picture in pictures])
        self.entered.release()
        assert self.may_go.acquire(timeout=SOON)
        return [picture.marker for picture in pictures]

    def enter(self) -> None:
        """Wait until a run has begun."""
        assert self.entered.acquire(timeout=SOON)

    def go(self, runs: int = 100) -> None:
        """Let runs end."""
        self.may_go.release(runs)


class ByHand(Server):
    """A server without threads: the test takes batches and runs them, in any order."""

    def _start(self) -> None:
        pass

    def take(self, worker: int) -> list[Any] | None:
        """Let a worker take the batch that is due now."""
        return self._queue.take(self._workers[worker], wait=False)

    def serve(self, worker: int, batch: list[Any]) -> None:
        """Let a worker run a batch, as its thread would."""
        with suppress(SystemExit):
            self._workers[worker].serve(batch)

    def expire(self) -> None:
        """Do what the thread that watches deadlines does."""
        self._expire()

    def finish(self, drain: bool) -> None:
        """Begin to close, without waiting."""
        self._refuse(drain)

    @property
    def unsettled(self) -> int:
        """Count the requests that the queue still knows and that have no outcome."""
        lines = self._queue._lines.values()
        known = [request for line in lines for request in line] + list(self._queue._running)
        return sum(not request.is_settled for request in known)


MakeByHand = Callable[..., ByHand]


def ask(server: Server, *markers: int, kind: str = "a", **options: Any) -> list[Future[Any]]:
    """Submit pictures with these markers."""
    return [server.submit(Picture(marker, kind), **options) for marker in markers]


def markers(batch: list[Any] | None) -> list[int]:
    """Return the markers of the pictures in a batch."""
    assert batch is not None
    return [request.image.marker for request in batch]
