"""The pipeline: turns a captured graph into a stitched one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule

from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..capture.model_parts import Captured
from ..engines.target import Target
from ..graph.ambient import explicit
from ..graph.patterns import require_matches, unmatched
from ..partition.extract import Extracted
from ..partition.partition import Partition
from ..pass_manager import run_passes
from ..reporting import Coverage, cluster_row, graph_coverage
from ..settings import Settings
from .bounds import bound_sizes
from .divide import Failures, divide, divide_again
from .forms import extract_all
from .settle import Settled, settle
from .stitch import stitch

__all__ = [
    "Lowered",
    "lower",
    "lower_model",
    "normalize",
    "normalize_model",
    "preview",
    "preview_coverage",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A stitched graph, the report on what runs where in it, and what left failing clusters."""

    graph: GraphModule
    coverage: Coverage
    failures: Failures = ()


def lower(
    gm: GraphModule,
    target: Target,
    inputs: Sequence[Any] | None = None,
    stores: PlanStores = PlanCache.of,
) -> Lowered:
    """Replace the convertible subgraphs of a captured graph with engines, in place.

    A cluster that does not build stays in PyTorch, alone.

    Args:
        inputs: one value for each placeholder, to check and to measure with; None makes some up.
        stores: where plans, checks and timings are kept.

    Raises:
        PassError: a pass failed.
        EngineError, ConversionError: with `on_build_failure="raise"` or `self_check="raise"` only.
    """
    normalize(gm, target.settings)
    for complaint in unmatched(target.settings.patterns, gm.graph.nodes):
        # This is no error, as it is for a whole model: another graph may have the node.
        log.info("in this graph %s", complaint)
    return _lower_normalized(gm, target, inputs, stores)


def lower_model(
    captured: Captured,
    target: Target,
    stores: PlanStores = PlanCache.of,
    failures: Sequence[Failures] = (),
) -> list[Lowered]:
    """Lower all graphs of a captured model, in the order of its parts and then of its others.

    Args:
        failures: what failed before in each of the graphs, if that is known.

    Raises:
        SettingsError: a pattern names no node of the model.
        PassError, EngineError, ConversionError: as `lower` does.
    """
    normalize_model(captured, target.settings)
    lowered: list[Lowered] = []
    parts = (*captured.parts, *captured.others)
    for part, known in zip(parts, failures or [()] * len(parts), strict=True):
        inputs = part.values() if part.has_values else None
        lowered.append(_lower_normalized(part.graph, target, inputs, stores, known))
        target = target.with_less_fuel(len(lowered[-1].coverage.clusters))
    return lowered


def normalize(gm: GraphModule, settings: Settings) -> None:
    """Run the passes over a captured graph and bound its sizes: it can then be divided.

    Raises:
        PassError: a pass failed.
    """
    run_passes(gm)
    with explicit():
        bound_sizes(gm, settings)


def normalize_model(captured: Captured, settings: Settings) -> None:
    """Normalize all graphs of a captured model.

    Raises:
        SettingsError: a pattern names no node of the model.
        PassError: a pass failed.
    """
    for part in (*captured.parts, *captured.others):
        normalize(part.graph, settings)
    nodes = [node for part in captured.parts for node in part.graph.graph.nodes]
    require_matches(settings.patterns, nodes)


def preview(
    gm: GraphModule, target: Target, failures: Failures = ()
) -> tuple[Partition, list[Extracted]]:
    """Return the partition that `lower` begins with and its clusters, without building any.

    Args:
        gm: a graph that was normalized.
        failures: what failed when it was lowered before.
    """
    with explicit():
        partition = divide(gm, target, divide_again(gm, target, failures))
    return partition, extract_all(gm, partition.clusters)


def preview_coverage(gm: GraphModule, target: Target) -> Coverage:
    """Report what `lower` would do with a graph that was normalized, without building."""
    partition, clusters = preview(gm, target)
    rows = [cluster_row(one, target.backend) for one in clusters]
    return graph_coverage(gm, partition, clusters, rows)


def _lower_normalized(
    gm: GraphModule,
    target: Target,
    inputs: Sequence[Any] | None,
    stores: PlanStores,
    failures: Failures = (),
) -> Lowered:
    settled = settle(gm, target, inputs, stores, failures)
    coverage = _coverage(gm, target, settled)
    stitch(gm, [one.extracted for one in settled.built], [one.module for one in settled.built])
    return Lowered(gm, coverage, settled.failures)


def _coverage(gm: GraphModule, target: Target, settled: Settled) -> Coverage:
    """Report on a settled graph, while the nodes of its clusters still stand in it."""
    clusters = [one.extracted for one in settled.built]
    rows = [
        cluster_row(one.extracted, target.backend, one.info, one.timing, one.check)
        for one in settled.built
    ]
    return graph_coverage(gm, settled.partition, clusters, rows)
