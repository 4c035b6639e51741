"""Keeps waiting requests in order, up to a bound, and hands them to workers in batches."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Callable, Hashable
from enum import Enum

from ..errors import QueueFull, ServerClosed
from .batching import BatchRule, choose
from .request import Request

__all__ = ["Queue", "State"]


class State(Enum):
    """What a queue still does: all, only what it has, or nothing more."""

    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class Queue:
    """The requests of a server that wait or run. Any thread may use it.

    Requests with equal keys stand in one line, by rank. Nothing here settles a request: methods
    return those to settle, because callbacks of their Futures may call the server again.
    """

    def __init__(self, size: int, rule: BatchRule, clock: Callable[[], float]) -> None:
        """Let at most `size` requests wait."""
        self.size = size
        self.rule = rule
        self.error: ServerClosed | None = None
        """What `put` raises once the queue is not open."""
        self._clock = clock
        self._lines: dict[Hashable, list[Request]] = {}
        self._waiting = 0
        self._running: dict[Request, object] = {}
        self._state = State.OPEN
        self.renew_lock()

    def renew_lock(self) -> None:
        """Make the lock anew, in a forked child where its holder may not exist."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._deadlines = threading.Condition(self._lock)
        self._awaited = math.inf

    @property
    def state(self) -> State:
        return self._state

    @property
    def waiting(self) -> int:
        """Count the requests that wait."""
        return self._waiting

    @property
    def running(self) -> int:
        """Count the requests that workers have taken and not finished."""
        return len(self._running)

    def put(self, request: Request, retry_after: Callable[[int], float]) -> None:
        """Let a request wait.

        Args:
            retry_after: gives the seconds in which so many requests are answered.

        Raises:
            QueueFull: as many requests as may wait do so.
            ServerClosed: the queue takes no more.
        """
        with self._lock:
            if self._state is not State.OPEN:
                assert self.error is not None
                raise type(self.error)(str(self.error)) from self.error.__cause__
            if self._waiting >= self.size:
                seconds = retry_after(self._waiting)
                raise QueueFull(
                    f"{self._waiting} requests wait already, and queue_size is {self.size}: try "
                    f"again in {seconds:.2g} s",
                    seconds,
                )
            line = self._lines.setdefault(request.key, [])
            bisect.insort(line, request, key=_rank)
            self._waiting += 1
            self._changed.notify_all()
            if request.deadline < self._awaited:
                self._deadlines.notify_all()

    def remove(self, request: Request) -> bool:
        """Take a request out before it runs; return False if it does not wait."""
        with self._lock:
            line = self._lines.get(request.key, [])
            at = bisect.bisect_left(line, request.rank, key=_rank)
            if at == len(line) or line[at] is not request:
                return False
            self._take_out(request.key, slice(at, at + 1))
            self._changed.notify_all()
            self._deadlines.notify_all()
            return True

    def take(self, holder: object, wait: bool = True) -> list[Request] | None:
        """Return the requests of the next batch, or None if there will be none.

        Args:
            holder: the worker that takes them.
            wait: False returns an empty list if no batch is due now.
        """
        with self._lock:
            while True:
                if self._state is not State.OPEN and not self._waiting:
                    return None
                now = self._clock()
                idle = not self._running or self._state is State.DRAINING
                key, seconds = choose(self._lines, self.rule, now, idle)
                if seconds <= 0.0:
                    batch = self._take_out(key, slice(self.rule.most))
                    self._running.update(dict.fromkeys(batch, holder))
                    return batch
                if not wait:
                    return []
                self._changed.wait(min(seconds, threading.TIMEOUT_MAX))

    def finish(self, batch: list[Request]) -> None:
        """Forget requests that `take` returned, after they are settled."""
        with self._lock:
            for request in batch:
                self._running.pop(request, None)
            self._changed.notify_all()
            self._deadlines.notify_all()

    def taken_by(self, holder: object) -> list[Request]:
        """Return the requests that a worker has taken and not finished."""
        with self._lock:
            return [request for request, worker in self._running.items() if worker is holder]

    def expired(self) -> list[Request]:
        """Return the requests whose time is over, and take those that wait out of the queue."""
        now = self._clock()
        with self._lock:
            late = [request for request in self._running if request.deadline <= now]
            for key, line in list(self._lines.items()):
                late += (request for request in line if request.deadline <= now)
                line[:] = [request for request in line if request.deadline > now]
                if not line:
                    del self._lines[key]
            self._waiting = sum(map(len, self._lines.values()))
            if late:
                self._changed.notify_all()
            return [request for request in late if not request.is_settled]

    def wait_for_deadline(self) -> bool:
        """Wait until a deadline may be over; return False if there will be no more."""
        with self._lock:
            if self._state is not State.OPEN and not self._waiting and not self._running:
                return False
            everyone = (request for line in self._lines.values() for request in line)
            live = (r.deadline for r in (*everyone, *self._running) if not r.is_settled)
            self._awaited = min(live, default=math.inf)
            seconds = self._awaited - self._clock()
            if seconds > 0.0:
                self._deadlines.wait(min(seconds, threading.TIMEOUT_MAX))
            return True

    def close(self, error: ServerClosed, drain: bool) -> list[Request]:
        """Take no more requests; return those that wait if they are not to run."""
        with self._lock:
            if self._state is State.OPEN:
                self.error = error
            if self._state is not State.CLOSED:
                self._state = State.DRAINING if drain else State.CLOSED
            dropped = [] if drain else self._take_all()
            self._changed.notify_all()
            self._deadlines.notify_all()
            return dropped

    def abandon(self, error: ServerClosed) -> list[Request]:
        """Close, and return all requests that wait or run: no worker will answer them."""
        with self._lock:
            if self._state is State.OPEN:
                self.error = error
            self._state = State.CLOSED
            rest = [*self._take_all(), *self._running]
            self._running.clear()
            self._changed.notify_all()
            self._deadlines.notify_all()
            return rest

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until no request waits or runs; return False if that takes longer."""
        seconds = min(seconds, threading.TIMEOUT_MAX)
        with self._lock:
            return self._changed.wait_for(lambda: not (self._waiting or self._running), seconds)

    def longest_run(self) -> float:
        """Return the seconds that the request taken first has been running, or 0."""
        with self._lock:
            started = [request.started for request in self._running if request.started is not None]
        return self._clock() - min(started) if started else 0.0

    def _take_out(self, key: Hashable, which: slice) -> list[Request]:
        line = self._lines[key]
        taken = line[which]
        del line[which]
        if not line:
            del self._lines[key]
        self._waiting -= len(taken)
        return taken

    def _take_all(self) -> list[Request]:
        everyone = [request for line in self._lines.values() for request in line]
        self._lines.clear()
        self._waiting = 0
        return everyone


def _rank(request: Request) -> tuple[float, int]:
    return request.rank
