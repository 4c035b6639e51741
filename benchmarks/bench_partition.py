"""Measures how the time to partition a graph grows with its size, beside torch's partitioner.

    python benchmarks/bench_partition.py --sizes 1000 10000 100000

The graphs are random: each node reads one or two of the last `WINDOW` ones, and one in five cannot
run in an engine. Times are CPU seconds of one process. They do not include building the graph;
extracting the clusters and stitching engines in has a column of its own. torch's
CapabilityBasedPartitioner gets graphs of up to `--theirs` nodes, since its time grows faster than
the graph.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from tabulate import tabulate
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupport

from fxtrt.lowering.stitch import stitch
from fxtrt.partition.extract import extract
from fxtrt.partition.partition import Cluster, partition, repair
from fxtrt.registry import Rejection
from fxtrt.settings import Settings

aten = torch.ops.aten
T = TypeVar("T")
WINDOW = 50


def random_graph(size: int, seed: int = 0) -> GraphModule:
    """Return a graph of `size` calls of relu, add, view and (one in five) sigmoid."""
    rng = random.Random(seed)
    graph = Graph()
    fake = torch.empty(2, 3, device="meta")
    values = [graph.placeholder("x")]
    values[0].meta["val"] = fake
    for _ in range(size):
        kind = rng.choice(("relu", "add", "add", "view", "sigmoid"))
        count = 2 if kind == "add" else 1
        operands = tuple(rng.choice(values[-WINDOW:]) for _ in range(count))
        if kind == "view":
            node = graph.call_function(aten.view.default, (*operands, [2, 3]))
        else:
            overload = "Tensor" if kind == "add" else "default"
            node = graph.call_function(getattr(getattr(aten, kind), overload), operands)
        node.meta["val"] = fake
        values.append(node)
    graph.output((values[-1],))
    return GraphModule(torch.nn.Module(), graph)


def support(node: Node, whitelisted: bool) -> Rejection | None:
    """Reject sigmoid, and support every other operator."""
    return Rejection("test", "sigmoid") if node.target is aten.sigmoid.default else None


class TheirSupport(OperatorSupport):
    """Gives torch's partitioner the answers of `support`."""

    def is_node_supported(self, submodules: object, node: Node) -> bool:
        return node.op == "call_function" and support(node, False) is None


def timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def row(size: int, most_theirs: int) -> list[str]:
    """Return one line of the table."""
    theirs = ["", ""]
    if size <= most_theirs:
        partitioner = CapabilityBasedPartitioner(
            random_graph(size), TheirSupport(), allows_single_node_partition=True
        )
        partitions, seconds = timed(partitioner.propose_partitions)
        theirs = [f"{seconds:.2f}", str(len(partitions))]
    gm = random_graph(size)
    settings = Settings(min_cluster_size=1)
    division, seconds = timed(lambda: repair(gm, partition(gm, support, settings)))
    _, around = timed(lambda: _extract_and_stitch(gm, division.clusters))
    ours = [f"{seconds:.2f}", str(len(division.clusters)), str(division.cuts_before_repair)]
    return [f"{size:,}", *ours, str(division.cuts), f"{around:.2f}", *theirs]


def _extract_and_stitch(gm: GraphModule, clusters: Sequence[Cluster]) -> None:
    extracted = [extract(gm, cluster) for cluster in clusters]
    stitch(gm, extracted, [one.module for one in extracted])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 3_000, 10_000, 30_000])
    parser.add_argument("--theirs", type=int, default=3_000)
    options = parser.parse_args()
    headers = ["nodes", "s", "clusters", "cuts before", "cuts", "extract, stitch s"]
    headers += ["torch's s", "torch's clusters"]
    rows = [row(size, options.theirs) for size in options.sizes]
    print(tabulate(rows, headers=headers, disable_numparse=True))


if __name__ == "__main__":
    main()
