"""Small graphs and modules that several tests build on."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import networkx as nx
import pytest
import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.infra.partitioner import Partition as TorchPartition
from torch.fx.passes.operator_support import OperatorSupport

from fxtrt.capture.export import trace
from fxtrt.partition.partition import Partition
from fxtrt.registry import Rejection, registered

aten = torch.ops.aten
UNARY = (torch.relu, torch.neg, torch.sigmoid, torch.sigmoid, lambda x: x.view(-1).view(2, 3))


def random_dag(seed: int, size: int) -> GraphModule:
    """A random graph of relu, add, views and sigmoid, which `rejects` keeps out of engines."""
    rng = random.Random(seed)
    inputs = [[rng.randrange(i + 1) for _ in range(rng.choice((1, 1, 2)))] for i in range(size)]
    kinds = [rng.choice(UNARY) for _ in range(size)]

    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [x]
        for sources, unary in zip(inputs, kinds, strict=True):
            operands = [values[j] for j in sources]
            values.append(operands[0] + operands[1] if len(operands) == 2 else unary(operands[0]))
        return tuple(values[-min(3, size) :])

    return trace(function, (torch.randn(2, 3),))


def shuffle(gm: GraphModule, seed: int) -> None:
    """Put the nodes of `gm` into another valid order, at random."""
    rng = random.Random(seed)
    graph: nx.DiGraph[Node] = nx.DiGraph()
    graph.add_nodes_from(gm.graph.nodes)
    graph.add_edges_from((source, node) for node in graph for source in node.all_input_nodes)
    keys = {node: (node.op != "placeholder", node.op == "output", rng.random()) for node in graph}
    order = list(nx.lexicographical_topological_sort(graph, keys.__getitem__))
    for previous, node in itertools.pairwise(order):
        previous.append(node)
    gm.graph.lint()


def rejects(*targets: object) -> Callable[[Node, bool], Rejection | None]:
    """A support test that keeps these targets out of engines and takes the rest."""

    def support(node: Node, whitelisted: bool) -> Rejection | None:
        return Rejection("test", str(node.target)) if node.target in targets else None

    return support


def replace_converter(
    monkeypatch: pytest.MonkeyPatch, target: OpOverload, build: Callable[..., Any]
) -> None:
    """Convert `target` with `build` during a test."""
    changed = replace(registered()[target], build=build)
    monkeypatch.setattr("fxtrt.registry._CONVERTERS", {**registered(), target: changed})


def quotient(gm: GraphModule, plan: Partition) -> nx.DiGraph[str]:
    """The graph with each cluster as one node."""
    home = {node: cluster.name for cluster in plan.clusters for node in cluster.nodes}
    graph: nx.DiGraph[str] = nx.DiGraph()
    for node in gm.graph.nodes:
        graph.add_node(home.get(node, node.name))
        for source in node.all_input_nodes:
            a, b = home.get(source, source.name), home.get(node, node.name)
            if a != b:
                graph.add_edge(a, b)
    return graph


def their_partitions(
    gm: GraphModule, support: Callable[[Node, bool], Rejection | None]
) -> list[TorchPartition]:
    """What torch's own partitioner makes of `gm`."""

    class Support(OperatorSupport):
        def is_node_supported(self, submodules: object, node: Node) -> bool:
            return node.op == "call_function" and support(node, False) is None

    partitioner = CapabilityBasedPartitioner(gm, Support(), allows_single_node_partition=True)
    return partitioner.propose_partitions()
