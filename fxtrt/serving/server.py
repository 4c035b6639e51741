"""Answers requests of many threads and clients with one model, in batches and in bounded time."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from types import TracebackType
from typing import Any, Literal

import torch

from ..errors import QueueFull, RequestTimeout, ServerClosed, ServingError, WorkerDied
from ..forks import renew_after_fork
from .batching import BatchRule, key_of
from .health import Health
from .lane import Lane, Model, written
from .metrics import make_recorder
from .model_facts import device_of, fallbacks_of, images_at_once, slots_of
from .queue import Queue, State
from .rate import Rate
from .request import Request
from .settings import ServerSettings, require_priority, require_timeout
from .tracing import end_span, start_span
from .worker import Worker

__all__ = ["Server"]

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 30.0
_EXIT_SECONDS = 10.0
"""The time that a server which is still open has to drain when the interpreter ends."""


class Server:
    """Answers images one by one, and runs the model on batches of them.

    Threads of the server, one for each slot of a compiled model, take what waits: an idle server
    runs a request at once, and while a batch runs the next one forms. Every accepted request is
    settled once: by its answer, by the model's error, or by a `ServingError`.

    If a batch fails, its images run again one by one, so that only those that fail alone get the
    error. If memory is short, it runs again in halves. After a CUDA error that does not pass, all
    requests fail with `WorkerDied`, and the server takes no more.

    Use it as a context manager, or call `close`; the end of the interpreter does so, too.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str = "model",
        workers: int | None = None,
        max_batch: int | None = None,
        max_delay: float = 0.0,
        batch_by: str | Callable[[Any], Hashable] = "shape",
        queue_size: int = 256,
        timeout: float = 30.0,
        aging: float = 0.1,
        device: torch.device | str | None = None,
        answers_on: str | None = "cpu",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start to serve `model`, which takes a list of images and returns a list of answers.

        Args:
            name: the label `model` of metrics and spans.
            workers: how many threads call the model; by default the slots of a compiled one, or 1.
            max_batch: the most images in a call; by default what a compiled model's `most_images`
                says, or 8.
            max_delay: the seconds that a request may wait for others while another batch runs.
            batch_by: "shape" puts only images of equal shapes into a batch. "any" takes all shapes,
                for detectors that pad them; what an image is batched with can then change its
                numbers a little. A function gives each image a key, which is equal in a batch.
            queue_size: the most requests that may wait; further ones are refused.
            timeout: the seconds that a request has, in the queue and in the model.
            aging: the seconds of waiting that are worth one step of priority.
            device: where the model runs; by default where its weights are. Images go there.
            answers_on: where tensors in answers go. None leaves them on the GPU: a client may read
                them on any stream, and must finish that before it lets go of them.
            clock: gives seconds that never go back.

        Raises:
            SettingsError: a setting does not take its value.
        """
        self.settings = ServerSettings(
            name=name,
            workers=slots_of(model) if workers is None else workers,
            max_batch=images_at_once(model) if max_batch is None else max_batch,
            max_delay=max_delay,
            batch_by=batch_by,
            queue_size=queue_size,
            timeout=timeout,
            aging=aging,
            device=device_of(model) if device is None else torch.device(device),
            answers_on=answers_on,
        )
        self._clock = clock
        self._numbers = itertools.count()
        self._rate = Rate(clock)
        self._queue = Queue(queue_size, BatchRule(self.settings.max_batch, max_delay), clock)
        self._recorder = make_recorder(name, self._gauges, partial(fallbacks_of, model))
        self._workers = [self._worker(model) for _ in range(self.settings.workers)]
        self._threads = self._make_threads()
        renew_after_fork(self)
        atexit.register(self._at_exit)
        self._start()

    def submit(self, image: Any, *, timeout: float | None = None, priority: int = 0) -> Future[Any]:
        """Let an image wait for its answer, and return at once.

        To cancel the Future takes the request out of the queue, if it does not run yet. Callbacks
        of the Future run in a thread of the server, and must be quick.

        Args:
            image: what the model takes in its list. The server reads it later: do not write to it.
            timeout: the seconds until the Future fails with `RequestTimeout`; None takes the
                server's. A request whose time is over is not run.
            priority: from -100 to 100. A request is served before those of one step less that came
                up to `aging` seconds earlier, so none waits for ever.

        Raises:
            QueueFull: too many requests wait; it says when to come back.
            ServerClosed: the server is closed.
        """
        timeout = self.settings.timeout if timeout is None else timeout
        require_timeout(timeout)
        require_priority(priority)
        now = self._clock()
        rank = now - priority * self.settings.aging, next(self._numbers)
        key = key_of(image, self.settings.batch_by)
        future: Future[Any] = Future()
        request = Request(image, key, rank, now, now + timeout, future, written(image))
        request.span = start_span(self.settings.name)
        future.add_done_callback(partial(self._settled, request))
        try:
            self._queue.put(request, self._rate.seconds_for)
        except ServingError as error:
            request.release()
            outcome = _outcome(error)
            self._recorder.refused(outcome)
            end_span(request, outcome, error)
            raise
        return future

    async def infer(self, image: Any, *, timeout: float | None = None, priority: int = 0) -> Any:
        """Return the answer for an image; arguments and errors are those of `submit`.

        A task that is cancelled while it waits cancels its request.
        """
        return await asyncio.wrap_future(self.submit(image, timeout=timeout, priority=priority))

    def close(self, drain: bool = True, timeout: float = _CLOSE_SECONDS) -> bool:
        """Take no more requests, and wait until all accepted ones are settled.

        It may be called at any time, from any thread, and again. In a thread of the server, as in a
        callback of a Future, it does not wait.

        Args:
            drain: whether requests that wait are answered; else they fail with `ServerClosed`.
                Those that run are answered in any case.
            timeout: the seconds to wait. Requests that are not settled by then fail with
                `ServerClosed`.

        Returns:
            Whether no request was left when the time was over.
        """
        end = time.monotonic() + timeout
        self._refuse(drain)
        if threading.current_thread() in self._threads:
            return False
        finished = self._queue.wait_until_empty(timeout)
        if not finished:
            late = ServerClosed(f"the server was closed, and had no answer after {timeout:g} s")
            _fail(self._queue.abandon(late), late)
        self._refuse(drain=False)
        for thread in self._threads:
            if finished and thread.is_alive():
                thread.join(min(max(0.0, end - time.monotonic()), threading.TIMEOUT_MAX))
        atexit.unregister(self._at_exit)
        return finished

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        """Close the server; an error in the block drops the requests that wait."""
        self.close(drain=error is None)
        return False

    @property
    def ready(self) -> bool:
        """Return whether the server takes requests."""
        return self._queue.state is State.OPEN

    @property
    def live(self) -> bool:
        """Return whether the server needs no new process: its device and threads still work."""
        ended = self._queue.state is not State.OPEN and not self._queue.waiting
        return not self._is_broken and (ended or self._alive() == len(self._workers))

    def health(self) -> Health:
        """Return what the server is able to do at the moment."""
        answered = [w.last_success for w in self._workers if w.last_success is not None]
        return Health(
            ready=self.ready,
            live=self.live,
            state=self._queue.state.value,
            workers=len(self._workers),
            workers_alive=self._alive(),
            queued=self._queue.waiting,
            running=self._queue.running,
            last_success=self._clock() - max(answered) if answered else None,
            longest_run=self._queue.longest_run(),
        )

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format.

        Raises:
            ServingError: prometheus-client is not installed.
        """
        return self._recorder.exposed()

    def after_fork(self) -> None:
        """Close the server in a forked child, which has none of its threads."""
        error = ServerClosed("this server belongs to the parent process: make one in the child")
        self._rate.renew_lock()
        self._queue.renew_lock()
        # The requests are the parent's, and their locks may be held by threads that are not here.
        self._queue.abandon(error)

    def _refuse(self, drain: bool) -> None:
        """Take no more requests, and fail those that wait unless they are to be drained."""
        closed = ServerClosed(f"the server {self.settings.name!r} is closed")
        _fail(self._queue.close(closed, drain), closed)

    def _worker(self, model: Model) -> Worker:
        lane = Lane(model, self.settings.device, self.settings.answers_on)
        return Worker(self._queue, lane, self._recorder, self._clock, self._broken)

    def _make_threads(self) -> list[threading.Thread]:
        """Make a thread for each worker, in their order, and the one that watches deadlines."""
        calls = {str(number): worker.run for number, worker in enumerate(self._workers)}
        calls["timeouts"] = self._watch
        name = f"fxtrt-{self.settings.name}"
        return [
            threading.Thread(target=call, name=f"{name}-{of}", daemon=True)
            for of, call in calls.items()
        ]

    def _start(self) -> None:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close(drain=False, timeout=0.0)
            raise

    @property
    def _is_broken(self) -> bool:
        return any(worker.is_dead for worker in self._workers)

    def _alive(self) -> int:
        pairs = zip(self._threads, self._workers, strict=False)
        return sum(thread.is_alive() and not worker.is_dead for thread, worker in pairs)

    def _broken(self, error: BaseException) -> None:
        """Fail all requests, because nothing runs on the device any more."""
        reason = f"{type(error).__name__}: {error}"
        log.error("the server %r stops, because its device fails: %s", self.settings.name, reason)
        closed = ServerClosed(f"the server needs a new process, because its device fails: {reason}")
        died = WorkerDied(f"the device of the server fails: {reason}")
        closed.__cause__ = died.__cause__ = error
        _fail(self._queue.abandon(closed), died)

    def _watch(self) -> None:
        """Fail requests whose time is over, until the queue is closed and empty."""
        while self._queue.wait_for_deadline():
            self._expire()

    def _expire(self) -> None:
        for request in self._queue.expired():
            where = "in the queue" if request.started is None else "in the model"
            seconds = request.deadline - request.arrived
            request.fail(RequestTimeout(f"no answer within {seconds:g} s: the request was {where}"))

    def _settled(self, request: Request, future: Future[Any]) -> None:
        """Note what became of a request; its Future calls this once, however it ends."""
        error: BaseException | None = None
        if future.cancelled():
            self._queue.remove(request)
            if request.release() is not None:
                future.set_running_or_notify_cancel()
            error = CancelledError()
        else:
            error = future.exception()
        request.image = None
        outcome = _outcome(error)
        if outcome in ("success", "failure"):
            self._rate.note()
        self._recorder.finished(outcome, self._clock() - request.arrived)
        end_span(request, outcome, error)

    def _gauges(self) -> dict[str, float]:
        return {
            "inference_pending_request_count": self._queue.waiting,
            "inference_running_request_count": self._queue.running,
            "queue_size": self._queue.size,
            "workers": len(self._workers),
            "workers_alive": self._alive(),
            "ready": self.ready,
        }

    def _at_exit(self) -> None:
        self.close(timeout=_EXIT_SECONDS)


def _fail(requests: Sequence[Request], error: ServingError) -> None:
    for request in requests:
        own = type(error)(str(error))
        own.__cause__ = error.__cause__
        request.fail(own)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "success"
    if isinstance(error, CancelledError):
        return "cancelled"
    kinds = {RequestTimeout: "timeout", QueueFull: "refused", ServerClosed: "closed"}
    return kinds.get(type(error), "failure")
