"""No request is lost, answered twice or mixed up, in any order of events and faults."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import Future
from typing import Any

import pytest
from serving_fakes import ByHand, Clock, Faulty, Picture, kind_of
from torch.cuda import OutOfMemoryError

from fxtrt.errors import QueueFull, RequestTimeout, ServerClosed, WorkerDied

WORKERS, MOST, SIZE = 2, 3, 4


class Story:
    """Clients, two workers, the watch of deadlines and a closing server, one event at a time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.model = Faulty()
        self.model.before = self._before_run
        self.server = ByHand(
            self.model,
            workers=WORKERS,
            max_batch=MOST,
            max_delay=0.5,
            batch_by=kind_of,
            queue_size=SIZE,
            clock=self.clock,
        )
        self.asked: list[tuple[Picture, Future[Any], float]] = []
        self.callbacks = Counter[int]()
        self.held: dict[int, list[Any]] = {}
        self.run_in_vain: list[int] = []
        self.seen = Counter[str]()

    def ask(self) -> None:
        picture = Picture(len(self.asked), self.random.choice("aab"), self.random.random() < 0.1)
        seconds = self.random.choice([0.2, 1.0, 30.0])
        was_full, was_ready = self.server.health().queued == SIZE, self.server.ready
        try:
            future = self.server.submit(
                picture, timeout=seconds, priority=self.random.randint(-2, 2)
            )
        except QueueFull:
            assert was_ready
            assert was_full
            self.seen["refused"] += 1
            return
        except ServerClosed:
            assert not was_ready
            return
        assert was_ready
        assert not was_full
        self.asked.append((picture, future, self.clock.now + seconds))
        future.add_done_callback(lambda _: self.callbacks.update([picture.marker]))

    def take(self) -> None:
        free = [worker for worker in range(WORKERS) if worker not in self.held]
        if free and (batch := self.server.take(free[0])):
            assert len({request.key for request in batch}) == 1
            assert len(batch) <= MOST
            self.held[free[0]] = batch

    def run(self) -> None:
        if self.held:
            worker = self.random.choice(list(self.held))
            fault = self.random.choice([None, None, None, "raises", "raises", "memory", "thread"])
            if self.random.random() < 0.01:
                fault = "device"
            self.model.fault, self.model.during = fault, self._happen
            self.server.serve(worker, self.held.pop(worker))
            self.model.fault = self.model.during = None

    def _before_run(self, markers: tuple[int, ...]) -> None:
        self.seen[f"{self.model.fault} of {len(markers)}"] += 1
        self.run_in_vain += (marker for marker in markers if self.asked[marker][1].done())

    def _happen(self) -> None:
        """Let something happen in the midst of a run."""
        event = self.random.choice([self.ask, self.pass_time, self.cancel, self.take])
        if self.random.random() < 0.5:
            event()
        elif self.random.random() < 0.02:
            self.close()

    def cancel(self) -> None:
        if not self.asked:
            return
        picture, future, _ = self.asked[-self.random.randint(1, min(8, len(self.asked)))]
        queued = self.server.health().queued
        held = [request.image for batch in self.held.values() for request in batch]
        was_queued = not future.done() and not future.running() and picture not in held
        future.cancel()
        assert self.server.health().queued == queued - was_queued
        assert not was_queued or self.model.count(picture.marker) == 0

    def pass_time(self) -> None:
        self.clock.now += self.random.choice([0.1, 0.6, 2.0])
        self.server.expire()
        assert all(future.done() for _, future, end in self.asked if end <= self.clock.now)

    def close(self) -> None:
        self.server.finish(drain=self.random.random() < 0.5)

    def check(self, last: int = 12) -> None:
        """Each request is known to the server, or has one outcome that is right."""
        assert self.server.health().queued <= SIZE
        assert self.run_in_vain == []
        assert sum(not future.done() for _, future, _ in self.asked) == self.server.unsettled
        for picture, future, _ in self.asked[-last:]:
            assert self.callbacks[picture.marker] == future.done()
            if future.done():
                self.seen[outcome(picture, future)] += 1
            # Once in a batch, once alone, and once more for each time that memory was short.
            assert self.model.count(picture.marker) <= 4

    def end(self) -> None:
        """Drain: whatever happened before, each accepted request gets its outcome."""
        self.server.finish(drain=True)
        for worker in list(self.held):
            self.server.serve(worker, self.held.pop(worker))
        while batch := self.server.take(0):
            self.server.serve(0, batch)
        assert self.server.take(0) is None
        assert self.server.close(timeout=0.0)
        self.check(len(self.asked))
        assert all(future.done() for _, future, _ in self.asked)


def outcome(picture: Picture, future: Future[Any]) -> str:
    """Hold an outcome against the only ones that there may be, and return which it is."""
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if error is None:
        assert future.result() == ("answer to", picture.marker)
        assert not picture.is_bad
        return "answered"
    if isinstance(error, ValueError):
        own = picture.is_bad and str(error) == f"picture {picture.marker} is bad"
        assert own or str(error) == "the whole batch fails"
        return "bad" if own else "failed"
    assert isinstance(error, RequestTimeout | ServerClosed | WorkerDied | OutOfMemoryError)
    return type(error).__name__


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_any_order_of_events(first: int) -> None:
    seen = Counter[str]()
    for seed in range(first, first + 100):
        story = Story(seed)
        events = [story.ask] * 6 + [story.take] * 2 + [story.run] * 2
        events += [story.cancel, story.pass_time]
        for _ in range(80):
            story.random.choice(events)()
            story.check()
        story.end()
        seen += story.seen
    every = {"answered", "bad", "failed", "cancelled", "refused", "RequestTimeout", "WorkerDied"}
    every |= {"ServerClosed", "OutOfMemoryError", "device of 1"}
    every |= {f"{fault} of {MOST}" for fault in (None, "raises", "memory", "thread")}
    assert {name for name in every if not seen[name]} == set()
