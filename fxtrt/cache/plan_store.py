"""Declares how builds get and keep plans: in a cache on disk, or in a file of `fxtrt.save`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..settings import Settings
from .engine_key import EngineKey
from .plan_file import PlanHeader, StoredPlan

__all__ = ["PlanStore", "PlanStores"]


class PlanStore(Protocol):
    """A store of plans, or of timings and self-checks in the form of plans."""

    def get(self, key: EngineKey) -> StoredPlan | None:
        """Return the plan stored under `key`, or None."""
        ...

    def put(self, key: EngineKey, plan: bytes, header: PlanHeader) -> None:
        """Keep `plan` under `key`, or log why it cannot be kept."""
        ...


PlanStores = Callable[[Settings, str], PlanStore | None]
"""Returns the store for settings and for a kind of entry ("plan", say), or None without a store."""
