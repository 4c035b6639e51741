"""Gives the locks of a forked child back: the threads that held them are not in it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["ForkLock", "renew_after_fork"]


class _Renewed(Protocol):
    def after_fork(self) -> None: ...


_RENEWED: weakref.WeakSet[_Renewed] = weakref.WeakSet()


def renew_after_fork(owner: _Renewed) -> None:
    """Call `owner.after_fork()` in each child of this process, for as long as `owner` lives."""
    _RENEWED.add(owner)


class ForkLock:
    """Gives a lock, to be asked for at each use: `with lock():`; in a forked child it is free."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def __call__(self) -> threading.Lock:
        return self._lock

    def after_fork(self) -> None:
        """Take a lock that nobody holds."""
        self._lock = threading.Lock()


def _renew() -> None:
    for owner in list(_RENEWED):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_renew)
