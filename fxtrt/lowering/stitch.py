"""Puts the engines of clusters where the clusters were in their graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import Graph, GraphModule, Node

from ..graph.nodes import is_size
from ..graph.order import dependencies, sort_topologically
from ..partition.extract import Extracted
from .adapt import adapt_readers

__all__ = ["stitch"]


def stitch(
    gm: GraphModule, clusters: Sequence[Extracted], modules: Sequence[torch.nn.Module]
) -> None:
    """Replace each cluster in `gm` by a call of its module.

    The module takes the cluster's inputs and gives a tuple of its outputs. The rest of the graph
    keeps its nodes and its signature.
    """
    replaced: dict[Node, Node] = {}
    calls: dict[Node, Extracted] = {}
    for extracted, module in zip(clusters, modules, strict=True):
        calls[_replace(gm, extracted, module, replaced)] = extracted
    traced = {item: node.meta["val"] for node, item in replaced.items()}
    for node in reversed(gm.graph.nodes):
        is_free = node.op == "get_attr" or (is_size(node) and node.op == "call_function")
        if is_free and not node.users:
            gm.graph.erase_node(node)
    sort_topologically(gm.graph, dependencies(gm.graph))
    adapt_readers(gm.graph, calls, traced)
    gm.graph.lint()
    gm.recompile()


def _replace(
    gm: GraphModule, extracted: Extracted, module: torch.nn.Module, replaced: dict[Node, Node]
) -> Node:
    """Put one cluster's call in its place, and return it.

    Args:
        replaced: maps the outputs of this and earlier clusters to the nodes in their place.
    """
    members = set(extracted.cluster.nodes)
    name = extracted.cluster.name
    gm.add_submodule(name, module)
    with gm.graph.inserting_after(extracted.cluster.nodes[-1]):
        call = gm.graph.call_module(name, tuple(replaced.get(n, n) for n in extracted.inputs))
    call.meta["val"] = tuple(extracted.given)
    for index, (node, given) in enumerate(zip(extracted.outputs, extracted.given, strict=True)):
        with gm.graph.inserting_after(call):
            item = gm.graph.call_function(operator.getitem, (call, index))
        item.meta = {**node.meta, "val": given}
        replaced[node] = item
        node.replace_all_uses_with(item, delete_user_cb=lambda user: user not in members)
    for node in reversed(extracted.cluster.nodes):
        for user in list(node.users):
            # A user may have been erased with an earlier one.
            if user not in members and user in node.users:
                _erase_dead_size(gm.graph, user)
        gm.graph.erase_node(node)
    return call


def _erase_dead_size(graph: Graph, node: Node) -> None:
    """Erase a size that only other dead sizes read, after them."""
    while node.users:
        _erase_dead_size(graph, next(iter(node.users)))
    graph.erase_node(node)
