"""Takes batches from the queue, runs them, and answers their requests, whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import WorkerDied
from .faults import Fault, fault_of, free_frames
from .lane import Lane
from .metrics import Recorder
from .queue import Queue
from .request import Request
from .tracing import note_batch

__all__ = ["Worker"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Work:
    """A request that runs, with its image, which the request forgets when it is settled."""

    request: Request
    image: Any


class Worker:
    """Runs batches one after the other; a server has one for each slot.

    is_dead: whether an error made the device unusable, so that the worker has ended.
    """

    def __init__(
        self,
        queue: Queue,
        lane: Lane,
        recorder: Recorder,
        clock: Callable[[], float],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """Call `on_death` with the error after which nothing can run on the device any more."""
        self.is_dead = False
        self.last_success: float | None = None
        self._queue = queue
        self._lane = lane
        self._recorder = recorder
        self._clock = clock
        self._on_death = on_death

    def run(self) -> None:
        """Work until the queue is closed and empty, or the device is unusable."""
        while not self.is_dead:
            try:
                batch = self._queue.take(self)
                if batch is None:
                    return
                self.serve(batch)
            except BaseException as error:
                # SystemExit, for one, from the model. The thread lives on: the server needs it.
                log.exception("a worker was interrupted by %s", type(error).__name__)
                lost = self._queue.taken_by(self)
                _fail(lost, error)
                self._queue.finish(lost)

    def serve(self, batch: list[Request]) -> None:
        """Settle all requests of a batch that was taken from the queue."""
        try:
            self._run(self._start(batch))
        except BaseException as error:
            _fail(batch, error)
            raise
        finally:
            self._queue.finish(batch)

    def _start(self, batch: Sequence[Request]) -> list[_Work]:
        now = self._clock()
        work = []
        for request in batch:
            image = request.image
            if request.start(now):
                work.append(_Work(request, image))
                self._recorder.started(now - request.arrived)
        return work

    def _run(self, work: list[_Work]) -> None:
        """Run a batch, and what is left of it again if it fails; `work` is empty afterwards.

        An error that a client keeps leads to this frame, and must not keep the images.
        """
        work[:] = [one for one in work if not one.request.is_settled]
        if not work:
            return
        began, parts = self._clock(), []
        try:
            answers = self._lane.run([w.image for w in work], [w.request.ready for w in work])
        except Exception as error:
            self._recorder.ran(len(work), self._clock() - began)
            parts = self._after(error, work)
        else:
            self.last_success = self._clock()
            self._recorder.ran(len(work), self.last_success - began)
            for one, answer in zip(work, answers, strict=True):
                note_batch(one.request, len(work))
                one.request.answer(answer)
        work.clear()
        for part in parts:
            self._run(part)

    def _after(self, error: Exception, work: list[_Work]) -> list[list[_Work]]:
        """Return the smaller batches to run in place of a failed one, or fail its requests."""
        fault = fault_of(error, self._lane.device)
        self._recorder.failed(fault)
        free_frames(error)
        if fault is Fault.DEVICE:
            self.is_dead = True
            _fail([one.request for one in work], error)
            self._on_death(error)
            return []
        if fault is Fault.SLOT or len(work) == 1:
            for one in work:
                one.request.fail(error)
            return []
        log.warning("a batch of %d failed and runs again in parts: %s", len(work), repr(error))
        size = (len(work) + 1) // 2 if fault is Fault.MEMORY else 1
        return [work[at : at + size] for at in range(0, len(work), size)]


def _fail(requests: Sequence[Request], error: BaseException) -> None:
    """Fail requests whose worker could not finish them."""
    for request in requests:
        reason = f"{type(error).__name__}: {error}"
        failure = WorkerDied(f"the worker died while it ran the request: {reason}")
        failure.__cause__ = error
        request.fail(failure)
