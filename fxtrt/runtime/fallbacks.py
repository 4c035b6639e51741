"""Counts and logs why calls run in PyTorch, in bounded memory and with few lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping

from ..forks import ForkLock

__all__ = ["OTHERS", "Fallbacks"]

log = logging.getLogger(__name__)

OTHERS = "other reasons"
"""The reason of calls whose own reason was dropped for lack of room."""
_MOST_REASONS = 32
_MOST_LETTERS = 300
_MOST_LINES = 5
_SECONDS = 60.0
"""At most `_MOST_LINES` lines are logged in this time."""


class Fallbacks(Mapping[str, int]):
    """The number of calls that ran in PyTorch, by reason; any number of threads may count.

    Only the most frequent reasons are kept: if there are too many, the rarest is dropped, and its
    calls count under `OTHERS`. A reason is logged when it first occurs, but at most `_MOST_REASONS`
    are logged in all, and `_MOST_LINES` a minute. A reason names shapes, dtypes and types, but no
    value that a caller passed, because reasons end up in logs and reports.
    """

    def __init__(self, message: str) -> None:
        """Begin with no calls.

        Args:
            message: the beginning of the lines in the log.
        """
        self._message = message
        self._lock = ForkLock()
        self._counts: dict[str, int] = {}
        self._compiled = 0
        self._logged: list[float] = []
        self._known = 0

    def __getitem__(self, reason: str) -> int:
        return self._counts[reason]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._counts))

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return repr(self._counts)

    @property
    def compiled(self) -> int:
        """Return how many calls ran as compiled."""
        return self._compiled

    def count_compiled(self) -> None:
        """Count a call that ran as compiled."""
        with self._lock():
            self._compiled += 1

    def record(self, reason: str) -> None:
        """Count a call that runs in PyTorch, and log a new reason."""
        reason = reason[:_MOST_LETTERS]
        with self._lock():
            line = None
            if reason not in self._counts:
                line = self._line(reason)
                self._make_room()
            self._counts[reason] = self._counts.get(reason, 0) + 1
        if line is not None:
            log.warning("%s: %s", self._message, line)

    def most_frequent(self) -> list[tuple[str, int]]:
        """Return the reasons and their calls, most frequent first, `OTHERS` last."""
        with self._lock():
            counts = dict(self._counts)
        return sorted(counts.items(), key=lambda item: (item[0] == OTHERS, -item[1]))

    def clear(self) -> None:
        """Forget all counts and what was logged."""
        with self._lock():
            self._counts, self._compiled = {}, 0
            self._logged, self._known = [], 0

    def _make_room(self) -> None:
        kept = [reason for reason in self._counts if reason != OTHERS]
        if len(kept) >= _MOST_REASONS:
            # The oldest of the rarest is dropped, because a new one may come again soon.
            rarest = min(kept, key=self._counts.__getitem__)
            calls = self._counts.pop(rarest)
            self._counts[OTHERS] = self._counts.get(OTHERS, 0) + calls

    def _line(self, reason: str) -> str | None:
        """Return the line to log for a new reason, or None if there were too many."""
        now = time.monotonic()
        self._logged = [moment for moment in self._logged if moment > now - _SECONDS]
        if self._known > _MOST_REASONS or len(self._logged) >= _MOST_LINES:
            return None
        self._logged.append(now)
        self._known += 1
        if self._known > _MOST_REASONS or len(self._logged) == _MOST_LINES:
            return f"{reason} (further reasons are counted only: see fxtrt.report)"
        return reason
