"""Remembers what became of each graph that Dynamo handed over, for `fxtrt.report(compiled)`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import torch
from torch.fx import GraphModule

from ..graph.provenance import line_text
from ..graph.specs import Call
from . import Coverage, GraphBreak
from .node_times import Reported, measured
from .serving_rows import runtime_rows

__all__ = ["record_graph", "recorded_coverage"]

_ATTRIBUTE = "_fxtrt_graphs"


@dataclass(frozen=True, slots=True)
class _Graph:
    parts: Sequence[Reported]
    graph_break: GraphBreak | None


def record_graph(gm: GraphModule, parts: Sequence[Reported]) -> None:
    """Keep what became of a graph with the `torch.compile` call that is compiling it.

    Args:
        gm: the graph as Dynamo made it.
        parts: a list with one item, which is replaced when the graph is compiled again.
    """
    call = _current_compile_call()
    if call is not None:
        graph = _Graph(parts, _graph_break(gm))
        call.__dict__.setdefault(_ATTRIBUTE, []).append(graph)


def recorded_coverage(
    compiled: torch._dynamo.OptimizedModule, call: Call | None = None
) -> Coverage | None:
    """Report on a module that `torch.compile` returned; return None before its first call.

    Args:
        call: the call whose times are measured; None measures none.
    """
    backend: Any = compiled.dynamo_ctx.callback
    while backend is not None and not isinstance(backend, torch._TorchCompileWrapper):
        backend = getattr(backend, "_torchdynamo_orig_backend", None)
    graphs: list[_Graph] = getattr(backend, _ATTRIBUTE, [])
    if not graphs:
        return None
    parts = [part for graph in graphs for part in graph.parts]
    coverages = [part.coverage for part in parts]
    if call is not None:
        coverages = measured(parts, lambda: compiled(*call.args, **call.kwargs))
    breaks = tuple(graph.graph_break for graph in graphs if graph.graph_break)
    total = Coverage.total(coverages)
    how = f"captured by torch.compile in {_count(parts, 'graph')}, {_count(breaks, 'graph break')}"
    return replace(total, graph_breaks=breaks, runtime=runtime_rows(parts), capture=(how,))


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def _current_compile_call() -> Any:
    """Return the object of the `torch.compile` call that is compiling on this thread.

    torch passes a backend the graph but not the call, so the frames of the callers are searched.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, torch._TorchCompileWrapper):
            return owner
        frame = frame.f_back
    return None


def _graph_break(gm: GraphModule) -> GraphBreak | None:
    """Return why Dynamo ended this graph, or None if it ended with the function."""
    reason = getattr(gm, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    text: str = next(line for line in [*reason.reason.splitlines(), reason.reason] if line.strip())
    if not reason.user_stack:
        return GraphBreak(text.strip(), "")
    frame = reason.user_stack[-1]
    return GraphBreak(text.strip(), line_text(frame.filename, frame.lineno, frame.name))
