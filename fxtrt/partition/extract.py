"""Copies clusters out of a graph, each into a GraphModule of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from ..conversion.size_carriers import missing_sizes
from ..graph.nodes import is_size
from ..graph.weights import attribute
from ..passes.size_nodes import size_nodes
from .partition import Cluster

__all__ = ["Extracted", "extract"]


@dataclass(frozen=True, slots=True)
class Extracted:
    """A cluster as a GraphModule of its own, and the nodes that it takes and gives in its graph."""

    cluster: Cluster
    module: GraphModule
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


def extract(gm: GraphModule, cluster: Cluster) -> Extracted:
    """Copy a cluster out of `gm`, with its weights, which are shared, and sizes of its tensors."""
    members = set(cluster.nodes)
    inputs = _inputs(cluster, members)
    inputs = (*inputs, *_carried(gm, cluster, inputs))
    read: dict[Node, bool] = {}
    outputs = tuple(node for node in cluster.nodes if _is_read_outside(node, members, read))
    root, graph = torch.nn.Module(), Graph()
    copies: dict[Node, Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in cluster.nodes:
        for source in _sizes_first(node, copies):
            if source.op == "get_attr":
                copies[source] = _copy_weight(gm, source, root, graph)
            else:
                copies[source] = graph.node_copy(source, copies.__getitem__)
    graph.output(tuple(copies[node] for node in outputs))
    graph.lint()
    module = GraphModule(root, graph, class_name=cluster.name)
    return Extracted(cluster, module, inputs, outputs)


def _inputs(cluster: Cluster, members: set[Node]) -> tuple[Node, ...]:
    """Return the tensors and sizes that come from outside, in order of first use."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    inner: dict[Node, bool] = {}

    def visit(node: Node) -> None:
        for source in node.all_input_nodes:
            if source in members or source.op == "get_attr" or source in seen:
                continue
            seen.add(source)
            if _is_size_of(source, members, inner):
                visit(source)
            else:
                found[source] = None

    for node in cluster.nodes:
        visit(node)
    return tuple(found)


def _carried(gm: GraphModule, cluster: Cluster, inputs: Sequence[Node]) -> list[Node]:
    """Return the sizes that the cluster's engine needs and cannot compute from `inputs`."""
    needed = [
        value
        for node in cluster.nodes
        for source in (node, *filter(is_size, node.all_input_nodes))
        for value in pytree.tree_leaves(source.meta["val"])
    ]
    missing = missing_sizes([node.meta["val"] for node in inputs], needed)
    return [node for node in size_nodes(gm, missing) if node not in inputs]


def _sizes_first(node: Node, copies: dict[Node, Node]) -> list[Node]:
    """Return the weights and sizes that `node` reads and that are not copied yet, then `node`."""
    order: dict[Node, None] = {}

    def visit(current: Node) -> None:
        for source in current.all_input_nodes:
            if source not in copies and source not in order:
                visit(source)
        order[current] = None

    visit(node)
    return list(order)


def _is_size_of(node: Node, members: set[Node], known: dict[Node, bool]) -> bool:
    """Return whether a size depends on a tensor of the cluster, so that it is computed inside.

    Args:
        known: the answers so far; without them, sizes that share parts take exponential time.
    """
    if node not in known:
        known[node] = is_size(node) and any(
            source in members or _is_size_of(source, members, known)
            for source in node.all_input_nodes
        )
    return known[node]


def _is_read_outside(node: Node, members: set[Node], known: dict[Node, bool]) -> bool:
    """Return whether a tensor is needed outside; sizes that only the cluster reads do not count.

    Args:
        known: the answers so far.
    """
    if node not in known:
        known[node] = any(
            user not in members
            and not (is_size(user) and not _is_read_outside(user, members, known))
            for user in node.users
        )
    return known[node]


def _copy_weight(gm: GraphModule, node: Node, root: torch.nn.Module, graph: Graph) -> Node:
    name = str(node.target).replace(".", "_")
    root.register_buffer(name, attribute(gm, node).detach(), persistent=False)
    copy = graph.get_attr(name)
    copy.meta = dict(node.meta)
    return copy
