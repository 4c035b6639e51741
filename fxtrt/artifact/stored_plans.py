"""Turns an open file of `fxtrt.save` into a store of plans for builds."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from ..cache.engine_key import EngineKey
from ..cache.plan_file import PlanHeader, StoredPlan
from ..cache.plan_store import PlanStores
from ..errors import ArtifactError
from .archive import ArtifactFile

__all__ = ["PLAN_KINDS", "plan_name", "plans_of"]

log = logging.getLogger(__name__)

PLAN_KINDS = ("plan", "timing", "check")
"""The kinds of `PlanCache`."""
_NAME = re.compile(r"(plan|timing|check)s/[0-9a-f]{64}\.\1")


def plan_name(kind: str, key: EngineKey) -> str:
    """Return the name of the plan of `key` in a file.

    Args:
        kind: a kind of `PlanCache`.
    """
    return f"{kind}s/{key.digest}.{kind}"


def plans_of(file: ArtifactFile, headers: Mapping[str, PlanHeader]) -> PlanStores:
    """Return a store of the plans in a file, which must stay open; it serves any settings.

    Args:
        headers: the headers by the names of the plans.

    Raises:
        ArtifactError: one of the names is not that of a plan.
    """
    if wrong := [name for name in headers if not _NAME.fullmatch(name)]:
        raise ArtifactError(f"there is a plan of the name {wrong[0]!r:.80}")
    stores = {kind: _ArtifactPlans(file, headers, kind) for kind in PLAN_KINDS}
    return lambda settings, kind: stores[kind]


class _ArtifactPlans:
    """A store of the plans of one kind."""

    def __init__(self, file: ArtifactFile, headers: Mapping[str, PlanHeader], kind: str) -> None:
        self._file, self._headers, self._kind = file, headers, kind

    def get(self, key: EngineKey) -> StoredPlan | None:
        """Return the plan of `key`, or None. A damaged plan is logged and counts as absent."""
        name = plan_name(self._kind, key)
        if name not in self._headers:
            return None
        try:
            return StoredPlan(self._headers[name], self._file.read(name))
        except ArtifactError as error:
            log.warning("%s; the engine is built again", error)
            return None

    def put(self, key: EngineKey, plan: bytes, header: PlanHeader) -> None:
        """Keep nothing, since loading a file must not need a place to write to."""
