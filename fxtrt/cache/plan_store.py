"""The seam between builds and where plans are kept: a cache on disk, or a file of `fxtrt.save`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..settings import Settings
from .engine_key import EngineKey
from .plan_file import PlanHeader, StoredPlan

__all__ = ["PlanStore", "PlanStores"]


class PlanStore(Protocol):
    """Where plans, or timings, are kept."""

    def get(self, key: EngineKey) -> StoredPlan | None:
        """Return the plan of `key`, or None."""
        ...

    def put(self, key: EngineKey, plan: bytes, header: PlanHeader) -> None:
        """Keep `plan`, or say why not."""
        ...


PlanStores = Callable[[Settings, str], PlanStore | None]
"""The store of settings, of plans or of what else `PlanCache` has kinds for; None keeps none."""
