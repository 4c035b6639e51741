"""Holds one image that waits for its answer, and settles it exactly once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from typing import Any

__all__ = ["Request"]

log = logging.getLogger(__name__)


class Request:
    """One image with its place in the queue and the `Future` of its answer.

    A request waits, then perhaps runs, and is settled by the first of an answer, an error and the
    cancellation of its Future. Whatever comes later changes nothing.

    image:    the image; None once the request is settled, so that no Future keeps it alive.
    key:      images of equal keys may be in one batch.
    rank:     the order in the queue, smallest first.
    arrived:  when it came, in seconds of the server's clock.
    deadline: when its time is over.
    started:  when a worker took it; None before.
    ready:    the CUDA event after which the image's memory is written; None on the CPU.
    span:     its OpenTelemetry span, or None.
    """

    __slots__ = (
        "_future",
        "_lock",
        "arrived",
        "deadline",
        "image",
        "key",
        "rank",
        "ready",
        "span",
        "started",
    )

    def __init__(
        self,
        image: Any,
        key: Hashable,
        rank: tuple[float, int],
        arrived: float,
        deadline: float,
        future: Future[Any],
        ready: Any = None,
    ) -> None:
        self.image = image
        self.key = key
        self.rank = rank
        self.arrived = arrived
        self.deadline = deadline
        self.started: float | None = None
        self.ready = ready
        self.span: Any = None
        self._future: Future[Any] | None = future
        self._lock = threading.Lock()

    @property
    def is_settled(self) -> bool:
        return self._future is None

    def start(self, now: float) -> bool:
        """Begin to run; return False if the request is settled already or was cancelled."""
        with self._lock:
            if self._future is None:
                return False
            if not self._future.set_running_or_notify_cancel():
                self._future = None
                return False
            self.started = now
            return True

    def answer(self, value: Any) -> bool:
        """Give the answer; return False if the request is settled already."""
        future = self.release()
        return future is not None and _give(future, future.set_result, value)

    def fail(self, error: BaseException) -> bool:
        """Give an error in place of the answer; return False if the request is settled already."""
        future = self.release()
        return future is not None and _give(future, future.set_exception, error)

    def release(self) -> Future[Any] | None:
        """Let go of the Future, for the one who settles it; return None to all others.

        The Future's callback holds the request, so this also ends a circle of references.
        """
        with self._lock:
            future, self._future = self._future, None
            return future


def _give(future: Future[Any], give: Callable[[Any], None], value: Any) -> bool:
    """Settle a Future. No lock is held, because the callbacks of its client run meanwhile."""
    try:
        give(value)
    except InvalidStateError:
        # The client has cancelled since the request was released.
        if future.cancelled():
            future.set_running_or_notify_cancel()
        return False
    except BaseException:
        # One client's callback must not keep the other requests of a batch from their answers.
        log.exception("a callback of a request's Future has raised")
    return True
