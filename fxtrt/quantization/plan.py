"""Decides which values of a graph are quantized, by the rules, and why products are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..builder.float_range import out_of_range
from ..graph.nodes import is_size
from ..graph.sizes import is_static
from ..graph.weights import weight
from ..registry import arguments_of
from .rules import FEATURES, FOREIGN, OTHER_PRODUCTS, PRODUCTS, RESIDUALS, SHARES, STEM_CHANNELS

__all__ = ["Edge", "QuantizationPlan", "candidates", "plan_of"]

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Edge:
    """A value, and a call that reads it quantized."""

    value: Node
    reader: Node


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """The values of a graph that are quantized.

    products: the calls that compute in int8, in graph order; their weights are quantized too.
    edges:    the values that are quantized per tensor, and for whom, in graph order.
    groups:   for each of the values, one of those that it shares a scale with, the same for all.
    kept:     the products that stay float16, and why.
    """

    products: tuple[Node, ...]
    edges: tuple[Edge, ...]
    groups: Mapping[Node, Node]
    kept: Mapping[Node, str]


def candidates(gm: GraphModule) -> list[Node]:
    """Return the values that are quantized by any settings: these are what a calibration looks at.

    They come in graph order.
    """
    possible = dict.fromkeys(n for n in gm.graph.nodes if _why_never(gm, n) is None)
    values = {_input_of(node): None for node in possible}
    for node in gm.graph.nodes:
        if node.target in RESIDUALS and any(n in possible for n in node.all_input_nodes):
            values |= dict.fromkeys(
                n for n in node.all_input_nodes if _is_float(n) and n.op != "get_attr"
            )
    for node in reversed(gm.graph.nodes):
        if node.target in SHARES and node in values:
            values |= dict.fromkeys(filter(_is_float, node.all_input_nodes))
    return [node for node in gm.graph.nodes if node in values]


def plan_of(
    gm: GraphModule, wanted: Callable[[Node], bool | str], forced: Callable[[Node], bool]
) -> QuantizationPlan:
    """Decide what is quantized.

    Args:
        gm: a graph that was normalized.
        wanted: whether a product may compute in int8 at all; or why not, if the report should say.
        forced: whether a product computes in int8 although a rule keeps it in float16.
    """
    products: list[Node] = []
    kept: dict[Node, str] = {}
    fed = _fed_by_products(gm)
    for node in gm.graph.nodes:
        if node.target not in PRODUCTS or not (why := wanted(node)):
            continue
        reason = _why_never(gm, node) or (why if isinstance(why, str) else None)
        if reason is None and not forced(node):
            reason = _why_kept(node, fed)
        reason = reason or out_of_range(gm, node, torch.float16)
        if reason is None:
            products.append(node)
        else:
            kept[node] = reason
    edges = [Edge(_input_of(node), node) for node in products]
    edges += _residuals(gm, products)
    edges, groups = _shared(gm, edges)
    order = {node: i for i, node in enumerate(gm.graph.nodes)}
    edges.sort(key=lambda edge: (order[edge.value], order[edge.reader]))
    return QuantizationPlan(tuple(products), tuple(edges), groups, kept)


def _input_of(node: Node) -> Node:
    value = node.args[PRODUCTS[node.target].x]  # type: ignore[index]  # it is a product
    assert isinstance(value, Node)
    return value


def _why_never(gm: GraphModule, node: Node) -> str | None:
    """Return why no settings can quantize a call; None if some can."""
    if node.target not in PRODUCTS:
        return "it is no product"
    product = PRODUCTS[node.target]  # type: ignore[index]  # just compared
    constant = node.args[product.weight]
    assert isinstance(constant, Node)
    value = weight(gm, constant)
    if value is None:
        return "its weight is computed"
    if value.dtype != torch.float32 or not _is_float(node):
        return f"its weight is {str(value.dtype).removeprefix('torch.')}, not float32"
    if node.target == aten.convolution.default and arguments_of(node)["transposed"]:
        return "it is a transposed convolution"
    if _input_of(node).op == "get_attr" or value.dim() < 2:
        return "it multiplies no tensor by a matrix"
    return None


def _why_kept(node: Node, fed: Mapping[Node, bool]) -> str | None:
    """Return why the rules keep a product in float16; None if they do not."""
    if node.target == aten.convolution.default:
        x = _input_of(node).meta["val"]
        if not fed[node] and is_static(x.shape[1]) and int(x.shape[1]) <= STEM_CHANNELS:
            return "it is the first convolution"
        if all(is_static(size) and int(size) == 1 for size in x.shape[2:]):
            return "it reads one pixel, where int8 saves nothing"
    if (reached := _reached(node)) is not None:
        return f"it is among the last: its result reaches {reached}"
    return None


def _fed_by_products(gm: GraphModule) -> dict[Node, bool]:
    """Return for each node whether what it reads depends on a product."""
    fed: dict[Node, bool] = {}
    for node in gm.graph.nodes:
        fed[node] = any(fed[n] or _is_product(n) for n in node.all_input_nodes)
    return fed


def _reached(node: Node) -> str | None:
    """Return the output or the operator of detectors that a result reaches without a product."""
    pending, seen = [node], {node}
    while pending:
        value = pending.pop()
        for user in value.users:
            if user.op == "output":
                return "the output"
            if user in seen or _is_product(user) or is_size(user):
                continue
            if _is_foreign(user) and not _hands_on(user, value):
                return str(user.target)
            seen.add(user)
            pending.append(user)
    return None


def _is_product(node: Node) -> bool:
    return node.target in PRODUCTS or node.target in OTHER_PRODUCTS


def _is_foreign(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target.namespace in FOREIGN


def _hands_on(node: Node, value: Node) -> bool:
    """Return whether an operator of detectors reads `value` as features."""
    assert isinstance(node.target, OpOverload)
    name = FEATURES.get(node.target._schema.name)
    features = None if name is None else arguments_of(node)[name]
    return value in torch.utils._pytree.tree_leaves(features)


def _residuals(gm: GraphModule, products: list[Node]) -> Iterator[Edge]:
    """Yield the other operands of sums with a product that nothing else reads."""
    quantized = set(products)
    for node in gm.graph.nodes:
        if node.target not in RESIDUALS:
            continue
        operands = [n for n in node.all_input_nodes if _is_float(n) and n.op != "get_attr"]
        fused = [n for n in operands if n in quantized and len(n.users) == 1]
        if len(operands) == 2 and fused and _same_rank(*operands):
            # The sum waits for the last product in any case, so that one adds.
            yield from (Edge(n, node) for n in operands if n is not fused[-1])


def _same_rank(a: Node, b: Node) -> bool:
    return bool(a.meta["val"].dim() == b.meta["val"].dim())


def _shared(gm: GraphModule, edges: list[Edge]) -> tuple[list[Edge], dict[Node, Node]]:
    """Add what `SHARES` quantizes; return all edges, and the groups of values with one scale."""
    found = {(edge.value, edge.reader): edge for edge in edges}
    parent = {edge.value: edge.value for edge in edges}

    def root(node: Node) -> Node:
        while parent.setdefault(node, node) is not node:
            node = parent[node]
        return node

    for node in reversed(gm.graph.nodes):
        if node.target not in SHARES or not node.users or not _is_float(node):
            continue
        if all((node, user) in found for user in node.users if not is_size(user)):
            for value in filter(_is_float, node.all_input_nodes):
                found.setdefault((value, node), Edge(value, node))
                parent[root(value)] = root(node)
    values = dict.fromkeys(edge.value for edge in found.values())
    return list(found.values()), {node: root(node) for node in values}


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    return value.dtype == torch.float32 and value.dim() > 0
