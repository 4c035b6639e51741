"""Measures how the time to build a network grows with the number of nodes in its graph.

    python benchmarks/bench_convert.py --nodes 1000 3000 10000

The graphs repeat one block of convolution, activation, reshape, product and arithmetic, each time
with weights of its own. Nothing is executed and no GPU is needed. The verdict uses CPU seconds,
which other processes on the machine do not affect.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from harness import machine
from tabulate import tabulate
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.nn import functional

from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.features import Features
from fxtrt.engines.reference import ReferenceBackend

LINEAR = 1.15
"""The largest power of the number of nodes that still counts as linear growth."""


@dataclass(frozen=True)
class Measurement:
    """The fastest of several builds of one graph."""

    nodes: int
    layers: int
    cpu_seconds: float
    wall_seconds: float


def main() -> None:
    arguments = parse()
    features = ReferenceBackend().features
    print(", ".join(f"{k} {v}" for k, v in machine().items()), features.version, sep=", ")
    for name, dynamic in (("static sizes", False), ("dynamic batch, height and width", True)):
        block = trace(residual_block, (torch.randn(2, 16, 8, 8),), dynamic=dynamic)
        graphs = [repeated(block, count) for count in arguments.nodes]
        found = [measure(graph, features, arguments.rounds) for graph in graphs]
        print(f"\n{name}\n{table(found)}\n{verdict(found)}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 3000, 10000])
    parser.add_argument("--rounds", type=int, default=3, help="builds per graph; the best counts")
    return parser.parse_args()


def residual_block(x: Tensor) -> Tensor:
    """Compute the repeated block: (N, 16, H, W) -> (N, 16, H, W)."""
    kernel, matrix, bias = torch.ones(16, 16, 3, 3), torch.ones(16, 16), torch.ones(16)
    y = functional.hardswish(functional.conv2d(x, kernel, bias, padding=1))
    y = torch.sigmoid(y.mean((2, 3), keepdim=True)) * y
    rows = y.flatten(2).transpose(1, 2)
    rows = functional.linear(functional.layer_norm(rows, (16,), bias, bias), matrix, bias)
    y = functional.gelu(rows).transpose(1, 2).reshape(x.shape)
    return functional.relu(torch.cat([y[:, :8], y[:, 8:] * 0.5 + 1], dim=1) + x)


def repeated(block: GraphModule, nodes: int) -> GraphModule:
    """Return a chain of copies of `block`, with at least `nodes` nodes."""
    graph = Graph()
    weights: dict[str, Tensor] = {}
    (source,) = block.graph.find_nodes(op="placeholder")
    x = graph.node_copy(source)
    while len(graph.nodes) < nodes:
        x = append(graph, block, {source: x}, weights)
    graph.output((x,)).meta["val"] = (x.meta["val"],)
    module = torch.nn.Module()
    for name, weight in weights.items():
        module.register_buffer(name, weight)
    return GraphModule(module, graph)


def append(
    graph: Graph, block: GraphModule, copies: dict[Node, Node], weights: dict[str, Tensor]
) -> Node:
    """Copy `block` to the end of `graph` and its weights to `weights`; return the copied output."""
    for node in block.graph.nodes:
        if node.op == "output":
            return copies[node.args[0][0]]
        if node.op == "get_attr":
            name = f"weight{len(weights)}"
            weights[name] = getattr(block, node.target).clone()
            copies[node] = graph.get_attr(name)
            copies[node].meta = dict(node.meta)
        elif node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    raise ValueError("the block has no output")


def measure(graph: GraphModule, features: Features, rounds: int) -> Measurement:
    times = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        network = convert(graph, features)
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
        layers = network.definition.num_layers
    return Measurement(len(graph.graph.nodes), layers, *min(times))


def table(found: Sequence[Measurement]) -> str:
    rows = [
        [m.nodes, m.layers, f"{m.cpu_seconds:.2f}", f"{m.wall_seconds:.2f}", rate(m)] for m in found
    ]
    return tabulate(rows, headers=["nodes", "layers", "CPU s", "wall s", "nodes / CPU s"])


def rate(found: Measurement) -> int:
    return round(found.nodes / found.cpu_seconds)


def verdict(found: Sequence[Measurement]) -> str:
    """Return how CPU seconds grow between the smallest and the largest graph."""
    small, large = min(found, key=lambda m: m.nodes), max(found, key=lambda m: m.nodes)
    if small.nodes == large.nodes:
        return "one size shows no growth"
    growth = math.log(large.cpu_seconds / small.cpu_seconds) / math.log(large.nodes / small.nodes)
    kind = "linear" if growth <= LINEAR else "more than linear"
    return f"{kind}: seconds grow with the number of nodes to the power {growth:.2f}"


if __name__ == "__main__":
    main()
