"""Reads which nodes of a cluster the error of its build names: layers are named after nodes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Graph, GraphModule, Node

from ..builder.build import BuildFailure
from ..errors import ConversionError
from ..graph.flops import flops
from ..graph.nodes import producer

__all__ = ["Named", "Range", "layers_in", "named_nodes"]

_LAYER = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\.\d+(?!\d|\.\d)")
"""A layer, as `convert` names them: the node, a point, and the layer's number for this node."""
_FOREIGN = re.compile(r"ForeignNode\[((?:[^\[\]]|\[[^\[\]]*\])+)\]")
"""Layers that TensorRT gave to its second compiler as one. A name may have brackets in it, as
`(Unnamed Layer* 7) [Shuffle]` has."""

Range = tuple[tuple[str, ...], tuple[str, ...]]
"""The nodes that a ForeignNode begins with and those that it ends with."""


@dataclass(frozen=True, slots=True)
class Named:
    """The nodes of a cluster that an error names, in graph order.

    nodes:   all of them, those within a range included.
    between: those that only lie within a range.
    """

    nodes: tuple[Node, ...] = ()
    between: tuple[Node, ...] = ()


def layers_in(message: str) -> tuple[tuple[str, ...], tuple[Range, ...]]:
    """Return the names of the nodes whose layers TensorRT names, and the ranges of such names.

    `node {ForeignNode[select_3.0...view_32.0]}` is the range from `select_3` to `view_32`. What
    has not the form of a layer's name is left out: the caller tells which names are nodes.
    """
    singles = list(_LAYER.findall(_FOREIGN.sub(" ", message)))
    ranges: list[Range] = []
    for inside in _FOREIGN.findall(message):
        first, dots, last = inside.partition("...")
        if dots:
            ranges.append((tuple(_LAYER.findall(first)), tuple(_LAYER.findall(last))))
        else:
            singles += _LAYER.findall(inside)
    return tuple(dict.fromkeys(singles)), tuple(dict.fromkeys(ranges))


def named_nodes(
    error: BuildFailure, nodes: Sequence[Node], originals: Mapping[str, Node], built: GraphModule
) -> Named:
    """Return which of `nodes` the error of their build names.

    Args:
        nodes: those of the cluster, in graph order.
        originals: these nodes by the names of their copies, as in `Extracted`.
        built: what was converted: these copies with casts, whose layers may be named too. A cast is
            no node of the cluster, but can be an end of a range.
    """
    by_name = {node.name: node for node in built.graph.nodes if node.op.startswith("call_")}
    singles, ranges = _names(error)
    ends = {by_name[name] for name in singles if name in by_name}
    inner: set[Node] = set()
    for one in ranges:
        first, last = ({by_name[name] for name in side if name in by_name} for side in one)
        ends |= first | last
        if first and last:
            inner |= _within(built.graph, first, last)
    return _in_cluster(nodes, originals, ends, inner)


def _names(error: BuildFailure) -> tuple[tuple[str, ...], tuple[Range, ...]]:
    if isinstance(error, ConversionError):
        # Its message tells of the node's operands too, which are not to blame.
        return ((error.node,) if error.node else ()), ()
    return layers_in(str(error))


def _in_cluster(
    nodes: Sequence[Node],
    originals: Mapping[str, Node],
    ends: Collection[Node],
    inner: Collection[Node],
) -> Named:
    """Return the originals of what is named, in order, with the `getitem`s of each call."""
    named = {originals[node.name] for node in ends if node.name in originals}
    within = {originals[node.name] for node in inner if node.name in originals}
    every = named | within
    taken = tuple(node for node in nodes if producer(node) in every)
    return Named(taken, tuple(node for node in taken if producer(node) not in named))


def _within(graph: Graph, first: Collection[Node], last: Collection[Node]) -> set[Node]:
    """Return the nodes of a range: those on paths from its first to its last nodes.

    Where no path leads from one to the other, both are in one region for another reason. Then the
    nodes are taken that lie between them in the order of the graph and are connected with an end
    there, but without those that have FLOPs and what is behind them.
    """
    order = list(graph.nodes)
    after, before = set(first), set(last)
    for node in order:
        if not after.isdisjoint(node.all_input_nodes):
            after.add(node)
    for node in reversed(order):
        if not before.isdisjoint(node.users):
            before.add(node)
    if paths := after & before:
        return paths
    at = sorted(order.index(node) for node in (*first, *last))
    light = {n for n in order[at[0] : at[-1] + 1] if n.op.startswith("call_") and not flops(n)}
    return set(_connected({*first, *last}, light))


def _connected(ends: Collection[Node], among: Collection[Node]) -> Iterator[Node]:
    """Give the nodes of `among` that are connected with one of `ends` through others of them."""
    pending, seen = list(ends), set(ends)
    while pending:
        node = pending.pop()
        yield node
        new = [n for n in (*node.all_input_nodes, *node.users) if n in among and n not in seen]
        seen.update(new)
        pending += new
