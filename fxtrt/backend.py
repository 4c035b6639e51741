"""The pipeline: a captured graph becomes a stitched one; and torch.compile(backend="fxtrt")."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from .cache import PlanCache
from .capture import capture_dynamo
from .engines.base import EngineBackend
from .engines.select import select
from .errors import CaptureError, PassError, SettingsError
from .lists import unmatched
from .outside import as_graph
from .pass_manager import run_passes
from .passes.bound_selections import bound_selections
from .plan_store import PlanStores
from .ranges import bound_ranges
from .records import record_graph
from .registry import Rejection
from .report import Coverage, cluster_row, graph_coverage, graph_rejection
from .report.node_times import Lowered
from .settings import Settings
from .settle import plan, settle
from .stitch import cut, stitch
from .stitched_call import serve

__all__ = ["bound", "compile_graph", "lower", "report_graph"]

log = logging.getLogger(__name__)


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
    bound(gm, settings)
    settled = settle(gm, backend, settings, inputs, stores)
    cuttings = [one.cutting for one in settled.built]
    rows = [cluster_row(one.cutting, backend, one.info) for one in settled.built]
    coverage = graph_coverage(gm, settled.plan, cuttings, rows)
    stitch(gm, cuttings, [one.module for one in settled.built])
    return gm, coverage


def report_graph(gm: GraphModule, backend: EngineBackend, settings: Settings) -> Coverage:
    """What `lower` would do with `gm`, without building."""
    bound(gm, settings)
    settled = plan(gm, backend, settings)
    cuttings = [cut(gm, cluster) for cluster in settled.clusters]
    rows = [cluster_row(cutting, backend, None) for cutting in cuttings]
    return graph_coverage(gm, settled, cuttings, rows)


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
        for complaint in unmatched(settings.patterns, aten_gm.graph.nodes):
            # No error, as it would be for a whole model: another graph may have the node.
            log.info("in this graph %s", complaint)
        lowered, coverage = lower(aten_gm, backend, settings)
        (call,) = serve([lowered], settings)
        parts[:] = [Lowered(coverage, lowered, call)]
        return call

    compiled: Callable[..., Any] = gm.forward
    if reason := _nothing_to_gain(gm, example_inputs, settings):
        parts = [Lowered(graph_rejection(gm, reason), None)]
    else:
        try:
            compiled = capture_dynamo(gm, example_inputs, compile_aten, settings.check_weights)
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


def bound(gm: GraphModule, settings: Settings) -> None:
    """Give the sizes that have no upper bound one, as far as the settings say which."""
    if settings.max_growth is not None:
        bound_ranges(gm, settings.max_growth)
    bound_selections(gm)


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
