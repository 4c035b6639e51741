"""Bound sizes that depend on data by the arguments of the call that selects."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils._sympy.value_ranges import ValueRanges

from ..graph.sizes import is_unbacked, size_range
from ..registry import arguments_of, registered

aten = torch.ops.aten


def bound_selections(gm: GraphModule) -> None:
    """Bound the size of each selection (`nms`, `boxes[:100]`) by what its arguments allow.

    For a slice of a tensor whose size depends on data, torch 2.11 only knows that it is no larger.
    """
    for node in gm.graph.nodes:
        size, most = _selected(node)
        if most is None or not (is_unbacked(size) and size.node.expr.is_Symbol):
            continue
        ranges = size.node.shape_env.var_to_range
        known = ranges[size.node.expr]
        if known.upper > most:
            ranges[size.node.expr] = ValueRanges(known.lower, max(known.lower, most))


def _selected(node: Node) -> tuple[Any, int | None]:
    """Return the size of a selection and its bound, or None for an unknown bound."""
    if not isinstance(node.target, OpOverload):
        return 0, None
    converter = registered().get(node.target)
    if converter is not None and converter.selects:
        (size,) = node.meta["val"].shape
        return size, size_range(node.all_input_nodes[0].meta["val"].shape[0])[1]
    if node.target is aten.slice.Tensor:
        call = arguments_of(node)
        start, end = call["start"] or 0, call["end"]
        size = node.meta["val"].shape[call["dim"]]
        if call["step"] == 1 and isinstance(start, int) and isinstance(end, int) and start >= 0:
            return size, max(0, end - start) if end >= 0 else None
    return 0, None
