"""Measures how many requests per second are settled, to tell refused clients when to come back."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["Rate"]

_WINDOW = 5.0
_MOST_NOTES = 256
_SHORTEST, _LONGEST = 0.05, 60.0
_UNKNOWN = 1.0
"""The seconds to come back after while nothing is measured."""


class Rate:
    """The number of settled requests in the last seconds. Any thread may use it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._notes: deque[float] = deque(maxlen=_MOST_NOTES)
        self.renew_lock()

    def renew_lock(self) -> None:
        """Make the lock anew, in a forked child where its holder may not exist."""
        self._lock = threading.Lock()

    def note(self) -> None:
        """Note that a request was answered now."""
        with self._lock:
            self._notes.append(self._clock())

    def seconds_for(self, count: int) -> float:
        """Return the seconds in which `count` requests will be answered, at the measured rate."""
        with self._lock:
            now = self._clock()
            while self._notes and self._notes[0] < now - _WINDOW:
                self._notes.popleft()
            if len(self._notes) < 2:
                return _UNKNOWN
            # The first note begins the time, and so it is not counted.
            seconds = (now - self._notes[0]) * count / (len(self._notes) - 1)
        return min(max(seconds, _SHORTEST), _LONGEST)
