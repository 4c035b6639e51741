"""The backend "fxtrt" of `torch.compile`: a graph of Dynamo's becomes a function to call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from .capture.export import capture_dynamo
from .engines.target import Target
from .errors import (
    CaptureError,
    PassError,
    SettingsError,
)
from .graph.ambient import (
    explicitly,
    is_transformed,
)
from .graph.plain import plain
from .graph.provenance import as_graph
from .lowering.lower import lower
from .registry import Rejection
from .reporting import (
    graph_rejection,
)
from .reporting.jit_graphs import record_graph
from .reporting.node_times import Reported
from .reporting.shortfall import shortfall
from .runtime.stitched_call import serve
from .settings import Settings

__all__ = [
    "compile_graph",
]

log = logging.getLogger(__name__)


def compile_graph(
    gm: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph for `torch.compile(model, backend="fxtrt", options={...})`, which calls this.

    Args:
        options: fields of `Settings` by name.

    Raises:
        SettingsError: an option does not exist or has a bad value, or there is a `mode`.
        EngineUnavailable: no engine can run here.
    """
    if mode is not None:
        raise SettingsError(f"backend 'fxtrt' takes no mode, but got {mode!r}: use options={{...}}")
    settings = Settings.of(None, options or {})
    target = Target.of(settings)
    parts: list[Reported] = []

    def compile_aten(aten_gm: GraphModule) -> Callable[..., Any]:
        lowered = lower(aten_gm, target)
        if warning := shortfall(lowered.coverage):
            log.warning("of a graph of torch.compile: %s", warning)
        (call,) = serve([lowered.graph], settings)
        parts[:] = [Reported(lowered.coverage, call)]
        return explicitly(lambda *inputs: call(*map(plain, inputs)))

    compiled: Callable[..., Any] = gm.forward
    if reason := _nothing_to_gain(gm, example_inputs, settings):
        parts = [Reported(graph_rejection(gm, reason))]
    else:
        try:
            compiled = capture_dynamo(gm, example_inputs, compile_aten, settings.check_weights)
        except CaptureError as error:
            log.warning("a graph stays in PyTorch: %s", error)
            parts = [Reported(graph_rejection(gm, Rejection("capture", str(error))))]
        except PassError as error:
            if settings.on_build_failure == "raise":
                raise
            log.warning("a graph stays in PyTorch: %s", error)
            parts = [Reported(graph_rejection(gm, Rejection("pass", str(error))))]
    record_graph(gm, parts)
    return as_graph(compiled)


def _nothing_to_gain(
    gm: GraphModule, example_inputs: Sequence[Any], settings: Settings
) -> Rejection | None:
    """Say why a Dynamo graph is returned as it is, before any tracing; None if it is traced."""
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
    if is_transformed():
        return Rejection(
            "requires_grad", "a transform of torch.func or forward-mode autograd is at work"
        )
    return None
