"""No request is lost, answered twice or mixed up, in any order of events and faults."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from serving_fakes import FAULTS, ByHand, Clock, Faulty, Picture, kind_of
from torch.cuda import OutOfMemoryError

from fxtrt.errors import QueueFull, RequestTimeout, ServerClosed, WorkerDied

WORKERS, MOST, SIZE = 2, 3, 4
DURING = ("nothing", "time passes", "the client goes", "the server closes", "a request comes")


class Requests(RuleBasedStateMachine):
    """Clients, two workers, the watch of deadlines and a closing server, one event at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.model = Faulty()
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
        self.callbacks: dict[int, int] = {}
        self.held: dict[int, list[Any]] = {}

    def submit(self, picture: Picture, seconds: float, priority: int) -> None:
        was_full = self.server.health().queued == SIZE
        try:
            future = self.server.submit(picture, timeout=seconds, priority=priority)
        except QueueFull:
            assert was_full
            return
        except ServerClosed:
            assert not self.server.ready
            return
        assert self.server.ready
        assert not was_full
        self.asked.append((picture, future, self.clock.now + seconds))
        future.add_done_callback(lambda _: self._count(picture.marker))

    def _count(self, marker: int) -> None:
        self.callbacks[marker] = self.callbacks.get(marker, 0) + 1

    @rule(
        kind=st.sampled_from("ab"),
        is_bad=st.sampled_from([False, False, False, True]),
        seconds=st.sampled_from([0.2, 1.0, 30.0]),
        priority=st.integers(-2, 2),
    )
    def ask(self, kind: str, is_bad: bool, seconds: float, priority: int) -> None:
        self.submit(Picture(len(self.asked), kind, is_bad), seconds, priority)

    @rule(worker=st.integers(0, WORKERS - 1))
    def take(self, worker: int) -> None:
        if worker in self.held:
            return
        if batch := self.server.take(worker):
            assert len({request.key for request in batch}) == 1
            assert len(batch) <= MOST
            self.held[worker] = batch

    @precondition(lambda self: self.held)
    @rule(
        fault=st.sampled_from([None, None, *FAULTS]),
        during=st.sampled_from(DURING),
        at=st.integers(0, 9),
    )
    def run(self, fault: str | None, during: str, at: int) -> None:
        worker = sorted(self.held)[at % len(self.held)]
        done = {picture.marker for picture, future, _ in self.asked if future.done()}
        before = len(self.model.runs)
        self.model.fault, self.model.during = fault, lambda: self.happen(during, at)
        self.server.serve(worker, self.held.pop(worker))
        self.model.fault = self.model.during = None
        if len(self.model.runs) > before:
            assert not done & set(self.model.runs[before])

    def happen(self, what: str, at: int) -> None:
        if what == "time passes":
            self.pass_time(0.6)
        elif what == "the client goes":
            self.asked[at % len(self.asked)][1].cancel()
        elif what == "the server closes":
            self.server.finish(drain=at % 2 == 0)
        elif what == "a request comes":
            self.submit(Picture(len(self.asked)), 1.0, 0)

    @precondition(lambda self: self.asked)
    @rule(at=st.integers(0, 99))
    def cancel(self, at: int) -> None:
        picture, future, _ = self.asked[at % len(self.asked)]
        queued = self.server.health().queued
        was_queued = not future.done() and all(
            request.image is not picture for batch in self.held.values() for request in batch
        )
        future.cancel()
        assert future.done()
        assert self.server.health().queued == queued - was_queued
        assert not was_queued or self.model.count(picture.marker) == 0

    @rule(seconds=st.sampled_from([0.1, 0.6, 5.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server.expire()
        late = [future for _, future, end in self.asked if end <= self.clock.now]
        assert all(future.done() for future in late)

    @rule(drain=st.booleans())
    @precondition(lambda self: len(self.asked) > 6)
    def close(self, drain: bool) -> None:
        self.server.finish(drain)

    @invariant()
    def the_queue_is_bounded(self) -> None:
        assert self.server.health().queued <= SIZE

    @invariant()
    def each_request_is_known_or_has_one_right_outcome(self) -> None:
        assert sum(not future.done() for _, future, _ in self.asked) == self.server.unsettled
        for picture, future, _ in self.asked:
            assert self.callbacks.get(picture.marker, 0) == future.done()
            if future.done():
                check(picture, future)
            # Once in a batch, once alone, and once more for each time that memory was short.
            assert self.model.count(picture.marker) <= 4

    def teardown(self) -> None:
        """Drain: whatever happened before, each accepted request gets its outcome."""
        self.server.finish(drain=True)
        for worker in list(self.held):
            self.server.serve(worker, self.held.pop(worker))
        while batch := self.server.take(0):
            self.server.serve(0, batch)
        assert self.server.take(0) is None
        assert self.server.close(timeout=0.0)
        self.each_request_is_known_or_has_one_right_outcome()
        assert all(future.done() for _, future, _ in self.asked)


def check(picture: Picture, future: Future[Any]) -> None:
    """Hold an outcome against the only ones that there may be."""
    if future.cancelled():
        return
    error = future.exception()
    if error is None:
        assert future.result() == ("answer to", picture.marker)
        assert not picture.is_bad
    elif isinstance(error, ValueError):
        own = picture.is_bad and str(error) == f"picture {picture.marker} is bad"
        assert own or str(error) == "the whole batch fails"
    else:
        assert isinstance(error, RequestTimeout | ServerClosed | WorkerDied | OutOfMemoryError)


Requests.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestRequests = Requests.TestCase
