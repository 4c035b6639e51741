"""The pipeline: a captured graph becomes a stitched one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule

from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..capture.size_ranges import bound_ranges
from ..engines.base import EngineBackend
from ..graph.ambient import explicit
from ..partition.extract import cut, stitch
from ..passes.bound_selections import bound_selections
from ..reporting import Coverage, cluster_row, graph_coverage
from ..settings import Settings
from .settle import plan, settle

__all__ = ["bound", "lower", "report_graph"]


def lower(
    gm: GraphModule,
    backend: EngineBackend,
    settings: Settings,
    inputs: Sequence[Any] | None = None,
    stores: PlanStores = PlanCache.of,
) -> tuple[GraphModule, Coverage]:
    """Compile a captured graph that the passes went over, in place.

    A cluster that does not build stays in PyTorch, alone.

    Args:
        inputs: one value for each placeholder, for `partition="measured"`; None makes values up.
        stores: where plans and timings are kept.

    Raises:
        EngineError, ConversionError: with `on_build_failure="raise"` only.
    """
    with explicit():
        bound(gm, settings)
        settled = settle(gm, backend, settings, inputs, stores)
    cuttings = [one.cutting for one in settled.built]
    rows = [cluster_row(one.cutting, backend, one.info) for one in settled.built]
    coverage = graph_coverage(gm, settled.plan, cuttings, rows)
    stitch(gm, cuttings, [one.module for one in settled.built])
    return gm, coverage


def report_graph(gm: GraphModule, backend: EngineBackend, settings: Settings) -> Coverage:
    """What `lower` would do with `gm`, without building."""
    with explicit():
        bound(gm, settings)
        settled = plan(gm, backend, settings)
    cuttings = [cut(gm, cluster) for cluster in settled.clusters]
    rows = [cluster_row(cutting, backend, None) for cutting in cuttings]
    return graph_coverage(gm, settled, cuttings, rows)


def bound(gm: GraphModule, settings: Settings) -> None:
    """Give the sizes that have no upper bound one, as far as the settings say which."""
    if settings.max_growth is not None:
        bound_ranges(gm, settings.max_growth)
    bound_selections(gm)
