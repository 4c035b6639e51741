"""Cuts clusters out of a graph, and puts modules in their places."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from ..conversion.size_carriers import missing_sizes
from ..graph.nodes import is_size
from ..graph.order import dependencies, sort_topologically
from ..graph.weights import attribute
from ..passes.size_nodes import size_nodes
from .partition import Cluster

__all__ = ["Cutting", "cut", "stitch"]


@dataclass(frozen=True, slots=True)
class Cutting:
    """A cluster as a GraphModule of its own, and what it takes from and gives to its graph."""

    cluster: Cluster
    module: GraphModule
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


def cut(gm: GraphModule, cluster: Cluster) -> Cutting:
    """Copy a cluster out of `gm`: weights come along, shared; sizes of its own tensors too."""
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
    return Cutting(cluster, module, inputs, outputs)


def stitch(
    gm: GraphModule, cuttings: Sequence[Cutting], modules: Sequence[torch.nn.Module]
) -> None:
    """Replace each cluster in `gm` by a call of its module, which takes the cutting's inputs and
    gives a tuple of its outputs. The rest of the graph keeps its nodes and its signature.
    """
    replaced: dict[Node, Node] = {}
    for cutting, module in zip(cuttings, modules, strict=True):
        _replace(gm, cutting, module, replaced)
    for node in reversed(gm.graph.nodes):
        is_free = node.op == "get_attr" or (is_size(node) and node.op == "call_function")
        if is_free and not node.users:
            gm.graph.erase_node(node)
    sort_topologically(gm.graph, dependencies(gm.graph))
    gm.graph.lint()
    gm.recompile()


def _replace(
    gm: GraphModule, cutting: Cutting, module: torch.nn.Module, replaced: dict[Node, Node]
) -> None:
    """Put one cluster's call in its place; `replaced` maps nodes of earlier clusters to theirs."""
    members = set(cutting.cluster.nodes)
    name = cutting.cluster.name
    gm.add_submodule(name, module)
    with gm.graph.inserting_after(cutting.cluster.nodes[-1]):
        call = gm.graph.call_module(name, tuple(replaced.get(n, n) for n in cutting.inputs))
    call.meta["val"] = tuple(node.meta["val"] for node in cutting.outputs)
    for index, node in enumerate(cutting.outputs):
        with gm.graph.inserting_after(call):
            item = gm.graph.call_function(operator.getitem, (call, index))
        item.meta = dict(node.meta)
        replaced[node] = item
        node.replace_all_uses_with(item, delete_user_cb=lambda user: user not in members)
    for node in reversed(cutting.cluster.nodes):
        for user in list(node.users):
            # It may have gone with another one.
            if user not in members and user in node.users:
                _erase_dead_size(gm.graph, user)
        gm.graph.erase_node(node)


def _inputs(cluster: Cluster, members: set[Node]) -> tuple[Node, ...]:
    """The values that come from outside, in order of first use; tensors and sizes, no weights."""
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
    """The sizes that the cluster's engine needs and cannot compute from `inputs`."""
    needed = [
        value
        for node in cluster.nodes
        for source in (node, *filter(is_size, node.all_input_nodes))
        for value in pytree.tree_leaves(source.meta["val"])
    ]
    missing = missing_sizes([node.meta["val"] for node in inputs], needed)
    return [node for node in size_nodes(gm, missing) if node not in inputs]


def _sizes_first(node: Node, copies: dict[Node, Node]) -> list[Node]:
    """`node` after the weights and sizes that it reads and that are not copied yet."""
    order: dict[Node, None] = {}

    def visit(current: Node) -> None:
        for source in current.all_input_nodes:
            if source not in copies and source not in order:
                visit(source)
        order[current] = None

    visit(node)
    return list(order)


def _is_size_of(node: Node, members: set[Node], known: dict[Node, bool]) -> bool:
    """Whether a size depends on a tensor of the cluster, so that it must be computed inside.

    known: the answers so far; without it, sizes that share their parts take forever.
    """
    if node not in known:
        known[node] = is_size(node) and any(
            source in members or _is_size_of(source, members, known)
            for source in node.all_input_nodes
        )
    return known[node]


def _is_read_outside(node: Node, members: set[Node], known: dict[Node, bool]) -> bool:
    """Whether a tensor is needed outside; sizes that only the cluster reads do not count.

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


def _erase_dead_size(graph: Graph, node: Node) -> None:
    while node.users:
        _erase_dead_size(graph, next(iter(node.users)))
    graph.erase_node(node)
