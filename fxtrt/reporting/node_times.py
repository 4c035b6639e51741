"""Measures how long each node of stitched graphs takes, and adds the times to coverages."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import GraphModule, Node

from ..capture.uncaptured import seconds_now
from ..runtime.engine_module import EngineModule
from ..runtime.stitched_call import StitchedCall
from ..runtime.timing import Timing, measure
from .coverage import Coverage

__all__ = ["Reported", "measured"]

_RUNS = 3


@dataclass(frozen=True, slots=True)
class Reported:
    """A graph in a report.

    call: calls the graph; None if the graph was rejected as a whole.
    """

    coverage: Coverage
    call: StitchedCall | None = None


class _Times:
    """Observes the calls of a graph and keeps their times.

    nodes:    the milliseconds of each run, by the name of the node.
    clusters: the times of the engine and its fallback, measured once, by the name of the cluster.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self.nodes: defaultdict[str, list[float]] = defaultdict(list)
        self.clusters: dict[str, Timing] = {}

    def __call__(self, node: Node, args: Sequence[Any], run: Callable[[], Any]) -> Any:
        start = seconds_now()
        result = run()
        self.nodes[node.name].append((seconds_now() - start) * 1e3)
        if node.op == "call_module":
            self._time_cluster(self._graph.get_submodule(str(node.target)), args)
        return result

    def _time_cluster(self, module: object, args: Sequence[Any]) -> None:
        if (
            isinstance(module, EngineModule)
            and module.engine is not None
            and module.name not in self.clusters
        ):
            self.clusters[module.name] = measure(module, args)


def measured(parts: Sequence[Reported], run: Callable[[], object]) -> list[Coverage]:
    """Return the parts' coverages with the median times of three runs, after one warm-up run.

    A part without a call, or whose call `run` does not make, keeps a coverage without times.

    Args:
        run: runs the model, which calls the parts.
    """
    run()
    coverages: list[Coverage] = []
    with ExitStack() as stack:
        observers = [_observed(part, stack) for part in parts]
        for _ in range(_RUNS):
            run()
    for part, times in zip(parts, observers, strict=True):
        coverages.append(part.coverage if times is None else _with_times(part.coverage, times))
    return coverages


def _observed(part: Reported, stack: ExitStack) -> _Times | None:
    """Observe the part's call until `stack` closes."""
    if part.call is None:
        return None
    times = _Times(part.call.graph)
    stack.enter_context(part.call.observe(times))
    return times


def _with_times(coverage: Coverage, times: _Times) -> Coverage:
    nodes = {name: statistics.median(values) for name, values in times.nodes.items()}
    rejected: dict[int, float] = {}
    clustered: dict[int, float] = {}
    for picture in coverage.pictures:
        for node in picture.nodes:
            if node.name not in nodes:
                continue
            if node.rejection is not None:
                rejected[node.rejection] = rejected.get(node.rejection, 0.0) + nodes[node.name]
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
