"""The pipeline: a captured graph becomes a stitched one; and torch.compile(backend="fxtrt")."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from .build import BuildInfo, build
from .capture import capture_dynamo
from .engines.base import EngineBackend
from .engines.select import select
from .errors import CaptureError, ConversionError, EngineError, PassError, SettingsError
from .outside import as_graph
from .partition import PartitionPlan, partition
from .pass_manager import run_passes
from .precision import with_precision
from .records import record_graph
from .registry import Rejection
from .report import Coverage, cluster_row, graph_coverage, graph_rejection
from .report.measure import Lowered
from .runtime import EngineModule
from .settings import Settings
from .stitch import Cutting, cut, stitch
from .support import support

__all__ = ["compile_graph", "lower", "plan", "report_graph"]

log = logging.getLogger(__name__)


def lower(
    gm: GraphModule, backend: EngineBackend, settings: Settings
) -> tuple[GraphModule, Coverage]:
    """Compile a captured graph that the passes went over, in place.

    A cluster that does not build stays in PyTorch, alone.

    Raises:
        EngineError, ConversionError: with `on_build_failure="raise"` only.
    """
    settled = plan(gm, backend, settings)
    rejections = dict(settled.rejections)
    built: list[tuple[Cutting, EngineModule, BuildInfo]] = []
    for cluster in settled.clusters:
        cutting = cut(gm, cluster)
        try:
            module, info = _build(cutting, backend, settings)
        except (EngineError, ConversionError) as error:
            if settings.on_build_failure == "raise":
                raise
            log.warning("%s stays in PyTorch: %s", cluster.name, error)
            rejections |= dict.fromkeys(cluster.nodes, Rejection("build_failed", str(error)))
        else:
            built.append((cutting, module, info))
    cuttings = [cutting for cutting, _, _ in built]
    rows = [cluster_row(cutting, backend, settings, info) for cutting, _, info in built]
    coverage = graph_coverage(gm, settled, cuttings, rows, rejections)
    stitch(gm, cuttings, [module for _, module, _ in built])
    return gm, coverage


def plan(gm: GraphModule, backend: EngineBackend, settings: Settings) -> PartitionPlan:
    """Where each call of `gm` will run. Nothing is built."""

    def why_not(node: Node, whitelisted: bool) -> Rejection | None:
        return support(node, backend, whitelisted=whitelisted)

    return partition(gm, why_not, settings)


def report_graph(gm: GraphModule, backend: EngineBackend, settings: Settings) -> Coverage:
    """What `lower` would do with `gm`, without building."""
    settled = plan(gm, backend, settings)
    cuttings = [cut(gm, cluster) for cluster in settled.clusters]
    rows = [cluster_row(cutting, backend, settings, None) for cutting in cuttings]
    return graph_coverage(gm, settled, cuttings, rows, settled.rejections)


def compile_graph(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """The backend that `torch.compile(model, backend="fxtrt", options={...})` calls.

    Args:
        options: fields of `Settings` by name.

    Raises:
        SettingsError: an option that does not exist, a bad value, or a `mode`.
        EngineUnavailable: no engine can run here.
    """
    if mode is not None:
        raise SettingsError(f"backend 'fxtrt' takes no mode, but got {mode!r}: use options={{...}}")
    settings = Settings.of(None, options or {})
    backend = select(settings.engine)
    parts: list[Lowered] = []

    def compile_aten(aten_gm: GraphModule) -> Callable[..., Any]:
        run_passes(aten_gm)
        lowered, coverage = lower(aten_gm, backend, settings)
        parts[:] = [Lowered(coverage, lowered)]
        return lowered

    compiled: Callable[..., Any] = gm.forward
    if reason := _nothing_to_gain(gm, example_inputs, settings):
        parts = [Lowered(graph_rejection(gm, reason), None)]
    else:
        try:
            compiled = capture_dynamo(gm, example_inputs, compile_aten)
        except CaptureError as error:
            log.warning("a graph stays in PyTorch: %s", error)
            parts = [Lowered(graph_rejection(gm, Rejection("capture", str(error))), None)]
        except PassError as error:
            if settings.on_build_failure == "raise":
                raise
            log.warning("a graph stays in PyTorch: %s", error)
            parts = [Lowered(graph_rejection(gm, Rejection("pass", str(error))), None)]
    record_graph(gm, parts)
    return as_graph(compiled)


def _build(
    cutting: Cutting, backend: EngineBackend, settings: Settings
) -> tuple[EngineModule, BuildInfo]:
    source = with_precision(cutting.module, settings.precision)
    engine, info = build(source, backend, settings)
    return EngineModule(cutting.cluster.name, engine, cutting.module), info


def _nothing_to_gain(
    gm: GraphModule, example_inputs: Sequence[Any], settings: Settings
) -> Rejection | None:
    """Why a Dynamo graph is returned as it is, before any tracing."""
    calls = sum(node.op.startswith("call_") for node in gm.graph.nodes)
    if calls < settings.min_cluster_size and not settings.whitelist:
        return Rejection(
            "too_small", f"{calls} calls in the graph, the minimum is {settings.min_cluster_size}"
        )
    if torch.is_grad_enabled() and any(
        isinstance(value, torch.Tensor)
        and value.requires_grad
        and not isinstance(value, torch.nn.Parameter)
        for value in example_inputs
    ):
        return Rejection("requires_grad", "an input requires grad: fxtrt compiles for inference")
    return None
