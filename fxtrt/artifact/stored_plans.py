"""Collects the plans of a model for a file, and turns an open file into a store of plans."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch.fx import GraphModule

from ..cache.engine_key import EngineKey
from ..cache.plan_file import PlanHeader, StoredPlan
from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..capture.model_part import ModelPart
from ..engines.target import Target
from ..errors import ArtifactError
from ..lowering.divide import Failures
from ..lowering.int8_race import races_int8
from ..lowering.lower import normalize, preview
from ..lowering.outcome import Outcome
from ..lowering.self_check import checks_engines
from ..quantization.quantize import quantize
from ..quantization.scale_table import ScaleTable
from ..runtime.stitched_call import engine_modules
from ..serialization.graph_data import StoredGraph
from .archive import ArtifactFile

__all__ = ["REBUILD", "Stored", "plans_of", "plans_to_save"]

log = logging.getLogger(__name__)

PLAN_KINDS = ("plan", "timing", "check", "race")
"""The kinds of `PlanCache`."""
REBUILD = "build the engines again from its graph with rebuild=True, or fxtrt verify --rebuild"
"""The way out where the plans in a file cannot run."""
_NAME = re.compile(r"(plan|timing|check|race)s/[0-9a-f]{64}\.\1")


Stored = tuple[ModelPart, StoredGraph, GraphModule]
"""A part, its graph as data, and the graph that this restores to."""


def plans_to_save(
    outcome: Outcome,
    stored: Sequence[Stored],
    headers: dict[str, Any],
) -> Iterator[tuple[str, bytes]]:
    """Yield the plans, timings and checks that compiling the parts again would ask for, by name.

    Args:
        stored: the parts with their restored graphs, which are changed.
        headers: a dict that gets the headers of the plans.

    Raises:
        ArtifactError: the cache has lost the plan of one of the engines.
    """
    target = outcome.target
    if not target.backend.plans:
        return
    stores = {kind: PlanCache.of(target.settings, kind) for kind in PLAN_KINDS}
    for (part, _, graph), failures in zip(stored, outcome.failures, strict=True):
        for kind, key, cluster in _keys(graph, target, failures, outcome.scales):
            store_of_kind, name = stores[kind], _plan_name(kind, key)
            if store_of_kind is None:
                raise ArtifactError(
                    "cache_dir=None keeps no plans: compile with a cache_dir to save them"
                )
            if name in headers:
                continue
            if (found := store_of_kind.get(key)) is not None:
                headers[name] = asdict(found.header)
                yield name, found.plan
            elif kind == "plan" and cluster in {m.name for m in engine_modules([part.graph])}:
                raise ArtifactError(
                    f"the plan of {cluster} has left {target.settings.cache_dir}: compile again, "
                    f"with a larger cache_limit_bytes"
                )


def _keys(
    graph: GraphModule, target: Target, failures: Failures, scales: ScaleTable | None
) -> Iterator[tuple[str, EngineKey, str]]:
    """Yield what compiling `graph`, as it was captured, asks for: kind, key and cluster."""
    normalize(graph, target.settings)
    quantize(graph, target, scales)
    wanted = {"plan": True, "timing": target.settings.partition == "measured"}
    wanted |= {"check": checks_engines(target), "race": races_int8(target)}
    kinds = [kind for kind in PLAN_KINDS if wanted[kind]]
    _, clusters = preview(graph, target, failures)
    for one in clusters:
        key = EngineKey.of(one.module, target.with_settings(one.cluster.settings))
        yield from ((kind, key, one.cluster.name) for kind in kinds)


def _plan_name(kind: str, key: EngineKey) -> str:
    """Return the name of the plan of `key` in a file.

    Args:
        kind: a kind of `PlanCache`.
    """
    return f"{kind}s/{key.digest}.{kind}"


def plans_of(
    file: ArtifactFile, headers: Mapping[str, PlanHeader], *, strict: bool = False
) -> PlanStores:
    """Return a store of the plans in a file, which must stay open; it serves any settings.

    Args:
        headers: the headers by the names of the plans.
        strict: whether a damaged plan is an error, and not built again.

    Raises:
        ArtifactError: one of the names is not that of a plan.
    """
    if wrong := [name for name in headers if not _NAME.fullmatch(name)]:
        raise ArtifactError(f"there is a plan of the name {wrong[0]!r:.80}")
    stores = {kind: _ArtifactPlans(file, headers, kind, strict=strict) for kind in PLAN_KINDS}
    return lambda settings, kind: stores[kind]


class _ArtifactPlans:
    """A store of the plans of one kind."""

    def __init__(
        self, file: ArtifactFile, headers: Mapping[str, PlanHeader], kind: str, *, strict: bool
    ) -> None:
        self._file, self._headers, self._kind, self._strict = file, headers, kind, strict

    def get(self, key: EngineKey) -> StoredPlan | None:
        """Return the plan of `key`, or None. A damaged plan is logged and counts as absent."""
        name = _plan_name(self._kind, key)
        if name not in self._headers:
            return None
        try:
            return StoredPlan(self._headers[name], self._file.read(name))
        except ArtifactError as error:
            if self._strict:
                raise ArtifactError(f"{error}; {REBUILD}") from error
            log.warning("%s; the engine is built again", error)
            return None

    def put(self, key: EngineKey, plan: bytes, header: PlanHeader) -> None:
        """Keep nothing, since loading a file must not need a place to write to."""
