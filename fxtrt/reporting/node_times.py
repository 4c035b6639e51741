"""Runs lowered graphs node by node, and gives their coverages with times."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..capture.uncaptured import seconds_now
from ..runtime.engine_module import EngineModule
from ..runtime.stitched_call import StitchedCall
from ..runtime.timing import Timing, measure
from .coverage import Coverage

__all__ = ["Reported", "measured"]

_RUNS = 3


@dataclass(frozen=True, slots=True)
class Reported:
    """A graph and its coverage.

    graph: stitched, or as it was captured in a report before compiling; None where Dynamo's graph
           was left as it is.
    call:  of the stitched graph.
    """

    coverage: Coverage
    graph: GraphModule | None
    call: StitchedCall | None = None


@dataclass(slots=True)
class _Times:
    """Of the nodes the milliseconds of each run, by name; of the clusters, by name too."""

    nodes: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    clusters: dict[str, Timing] = field(default_factory=dict)


def measured(parts: Sequence[Reported], run: Callable[[], object]) -> list[Coverage]:
    """The parts' coverages with the median times of three runs, after one that warms up.

    A graph that is not run keeps a coverage without times.

    Args:
        run: calls the model, and so the graphs.
    """
    all_times = [_Times() for _ in parts]
    run()
    with _node_by_node(parts, all_times):
        for _ in range(_RUNS):
            run()
    return [_with_times(p.coverage, times) for p, times in zip(parts, all_times, strict=True)]


@contextmanager
def _node_by_node(parts: Sequence[Reported], all_times: Sequence[_Times]) -> Iterator[None]:
    graphs = [(p.graph, times) for p, times in zip(parts, all_times, strict=True) if p.graph]
    try:
        for graph, times in graphs:
            graph.__dict__["forward"] = _forward(graph, times)
        yield
    finally:
        for graph, _ in graphs:
            graph.__dict__.pop("forward", None)


def _forward(graph: GraphModule, times: _Times) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        leaves = pytree.tree_leaves((args, kwargs))
        result = _TimedRun(graph, times).run(*leaves, enable_io_processing=False)
        return graph.graph.process_outputs(result)

    return forward


class _TimedRun(Interpreter):
    def __init__(self, graph: GraphModule, times: _Times) -> None:
        super().__init__(graph)
        self._times = times

    def run_node(self, n: Node) -> Any:
        if not n.op.startswith("call_"):
            return super().run_node(n)
        start = seconds_now()
        result = super().run_node(n)
        self._times.nodes[n.name].append((seconds_now() - start) * 1e3)
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, EngineModule) and module.name not in self._times.clusters:
            args, _ = self.fetch_args_kwargs_from_env(n)
            if module.engine is not None:
                self._times.clusters[module.name] = measure(module, args)
        return result


def _with_times(coverage: Coverage, times: _Times) -> Coverage:
    nodes = {name: statistics.median(values) for name, values in times.nodes.items()}
    rejected: dict[int, float] = {}
    clustered: dict[int, float] = {}
    for picture in coverage.pictures:
        for node in picture.nodes:
            if node.name not in nodes:
                continue
            if node.rejection is not None:
                rejected[node.rejection] = nodes[node.name]
            elif node.cluster is not None:
                clustered[node.cluster] = clustered.get(node.cluster, 0.0) + nodes[node.name]
    clusters = []
    for i, row in enumerate(coverage.clusters):
        if timing := times.clusters.get(row.name):
            row = replace(row, engine_ms=timing.engine_ms, pytorch_ms=timing.pytorch_ms)
        elif i in clustered:
            row = replace(row, pytorch_ms=clustered[i])
        clusters.append(row)
    return replace(
        coverage,
        clusters=tuple(clusters),
        rejections=tuple(
            replace(row, ms=rejected.get(i)) for i, row in enumerate(coverage.rejections)
        ),
    )
