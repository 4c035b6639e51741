"""The pipeline: turns a captured graph into a stitched one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from ..quantization.quantize import Quantized, preview_quantized, quantize
from ..quantization.scale_table import ScaleTable
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
    return _lower_normalized(gm, target, inputs, stores, None)


def lower_model(
    captured: Captured,
    target: Target,
    stores: PlanStores = PlanCache.of,
    failures: Sequence[Failures] = (),
    scales: ScaleTable | None = None,
) -> list[Lowered]:
    """Lower all graphs of a captured model, in the order of its parts and then of its others.

    Args:
        captured: a model whose graphs were normalized.
        failures: what failed before in each of the graphs, if that is known.
        scales: what int8 computes with; None looks for those of an earlier calibration.

    Raises:
        SettingsError: a component is to compute in int8, and there are no scales for it.
        EngineError, ConversionError: as `lower` does.
    """
    lowered: list[Lowered] = []
    parts = (*captured.parts, *captured.others)
    for part, known in zip(parts, failures or [()] * len(parts), strict=True):
        inputs = part.values() if part.has_values else None
        lowered.append(_lower_normalized(part.graph, target, inputs, stores, scales, known))
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
        gm: a graph that was normalized, and quantized if the settings ask for that.
        failures: what failed when it was lowered before.
    """
    with explicit():
        partition = divide(gm, target, divide_again(gm, target, failures))
    return partition, extract_all(gm, partition.clusters)


def preview_coverage(gm: GraphModule, target: Target) -> Coverage:
    """Report what `lower` would do with a graph that was normalized, without building."""
    quantized = preview_quantized(gm, target)
    partition, clusters = preview(gm, target)
    rows = [cluster_row(one, target.backend) for one in clusters]
    return _with_int8(graph_coverage(gm, partition, clusters, rows), clusters, quantized)


def _lower_normalized(
    gm: GraphModule,
    target: Target,
    inputs: Sequence[Any] | None,
    stores: PlanStores,
    scales: ScaleTable | None,
    failures: Failures = (),
) -> Lowered:
    quantized = quantize(gm, target, scales)
    settled = settle(gm, target, inputs, stores, failures)
    coverage = _coverage(gm, target, settled)
    coverage = _with_int8(coverage, [one.extracted for one in settled.built], quantized)
    stitch(gm, [one.extracted for one in settled.built], [one.module for one in settled.built])
    return Lowered(gm, coverage, settled.failures)


def _with_int8(coverage: Coverage, clusters: Sequence[Extracted], quantized: Quantized) -> Coverage:
    """Say which of the nodes in engines compute in int8, and what stays float16 and why."""
    inside = {node for one in clusters for node in one.cluster.nodes}
    return replace(
        coverage,
        int8=sum(node in inside for node in quantized.products),
        kept_fp16=tuple(f"{name}: {why}" for name, why in quantized.kept.items()),
    )


def _coverage(gm: GraphModule, target: Target, settled: Settled) -> Coverage:
    """Report on a settled graph, while the nodes of its clusters still stand in it."""
    clusters = [one.extracted for one in settled.built]
    rows = [
        cluster_row(one.extracted, target.backend, one.info, one.timing, one.check)
        for one in settled.built
    ]
    return graph_coverage(gm, settled.partition, clusters, rows)
