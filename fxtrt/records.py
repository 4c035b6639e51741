"""Remembers what became of each graph that Dynamo handed over, for `fxtrt.report(compiled)`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.fx import GraphModule

from .report import Coverage

__all__ = ["record_graph", "recorded_coverage"]

_ATTRIBUTE = "_fxtrt_graphs"


@dataclass(frozen=True, slots=True)
class _Graph:
    parts: Sequence[Coverage]
    graph_break: str | None


def record_graph(gm: GraphModule, parts: Sequence[Coverage]) -> None:
    """Note the outcome of a graph with the `torch.compile` call that is compiling it.

    Args:
        gm: as Dynamo made it.
        parts: one Coverage, in a list that is updated when the graph is compiled again.
    """
    call = _current_compile_call()
    if call is not None:
        graph = _Graph(parts, _graph_break(gm))
        call.__dict__.setdefault(_ATTRIBUTE, []).append(graph)


def recorded_coverage(compiled: torch._dynamo.OptimizedModule) -> Coverage | None:
    """What is running in a module that `torch.compile` returned; None before its first call."""
    backend: Any = compiled.dynamo_ctx.callback
    while backend is not None and not isinstance(backend, torch._TorchCompileWrapper):
        backend = getattr(backend, "_torchdynamo_orig_backend", None)
    graphs: list[_Graph] = getattr(backend, _ATTRIBUTE, [])
    if not graphs:
        return None
    coverage = Coverage.total([part for graph in graphs for part in graph.parts])
    breaks = tuple(graph.graph_break for graph in graphs if graph.graph_break)
    return Coverage(coverage.clusters, coverage.rejections, breaks)


def _current_compile_call() -> Any:
    """The object that stands for the `torch.compile` call which is compiling on this thread.

    torch passes a backend the graph and nothing about whose graph it is; the caller's frame has it.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch._TorchCompileWrapper):
            return owner
        frame = frame.f_back
    return None


def _graph_break(gm: GraphModule) -> str | None:
    """Why Dynamo ended this graph, where it did not end with the function."""
    reason = getattr(gm, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    text: str = next(line for line in [*reason.reason.splitlines(), reason.reason] if line.strip())
    frames = reason.user_stack
    where = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return text.strip() + where
