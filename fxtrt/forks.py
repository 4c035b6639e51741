"""Renew locks in a forked child, where the threads that hold them do not exist."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["ForkLock", "renew_after_fork"]


class _HasForkHook(Protocol):
    def after_fork(self) -> None: ...


_OWNERS: weakref.WeakSet[_HasForkHook] = weakref.WeakSet()
"""The objects whose `after_fork` is called in each forked child."""


def renew_after_fork(owner: _HasForkHook) -> None:
    """Call `owner.after_fork()` in each child of this process, for as long as `owner` lives."""
    _OWNERS.add(owner)


class ForkLock:
    """A lock that is free in a forked child; call it at each use: `with lock():`."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def __call__(self) -> threading.Lock:
        return self._lock

    def after_fork(self) -> None:
        """Replace the lock with a new one, which nobody holds."""
        self._lock = threading.Lock()


def _renew() -> None:
    for owner in list(_OWNERS):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_renew)
