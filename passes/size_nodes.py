"""Add nodes that compute sizes from the inputs of their graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.utils._sympy.functions import (
    CeilToInt,
    CleanDiv,
    FloatTrueDiv,
    FloorDiv,
    FloorToInt,
    Identity,
    IntTrueDiv,
    Max,
    Min,
    Mod,
    PowByNatural,
    PythonMod,
    RoundToInt,
    ToFloat,
    TruncToInt,
)

from ..graph.nodes import is_size
from ..graph.size_relations import linear
from ..graph.sizes import expression, is_static

aten = torch.ops.aten

Value = Node | int | float

_FUNCTIONS: dict[type, Callable[..., Any]] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Pow: operator.pow,
    PowByNatural: operator.pow,
    sympy.Max: torch.sym_max,
    sympy.Min: torch.sym_min,
    Max: torch.sym_max,
    Min: torch.sym_min,
    FloorDiv: operator.floordiv,
    CleanDiv: operator.floordiv,
    IntTrueDiv: operator.truediv,
    FloatTrueDiv: operator.truediv,
    Mod: operator.mod,
    PythonMod: operator.mod,
    ToFloat: torch.sym_float,
    TruncToInt: math.trunc,
    FloorToInt: math.floor,
    CeilToInt: math.ceil,
    RoundToInt: round,
    Identity: operator.pos,
}


def size_nodes(gm: GraphModule, sizes: Sequence[torch.SymInt]) -> list[Node]:
    """Return a node of `gm` for each of `sizes`: an existing one, or new ones behind the inputs.

    A size is left out where the inputs do not determine it.
    """
    known = _from_inputs(gm) if sizes else {}
    found: list[Node] = []
    for size in sizes:
        expr = expression(size)
        if expr not in known and (written := _write(gm, expr)) is not None:
            # Torch may write the same number in another way.
            written.meta["val"] = size
            known[expr] = written
        if expr in known:
            found.append(known[expr])
    return found


def _from_inputs(gm: GraphModule) -> dict[sympy.Expr, Node]:
    """Return the sizes that are computed from the graph's inputs alone, by their expressions."""
    rooted: set[Node] = set()
    found: dict[sympy.Expr, Node] = {}
    for node in gm.graph.nodes:
        if node.op != "placeholder" and not (is_size(node) and rooted >= set(node.all_input_nodes)):
            continue
        rooted.add(node)
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt) and not is_static(value):
            found.setdefault(expression(value), node)
    return found


def _write(gm: GraphModule, expr: sympy.Expr) -> Node | None:
    """Add nodes that compute `expr`, and return the last; return None if some part has no
    function."""
    inner = (part for part in sympy.preorder_traversal(expr) if part.args)
    if any(part.func not in _FUNCTIONS for part in inner):
        return None
    writer = _Writer(gm)
    with gm.graph.inserting_before(writer.place):
        result = writer.value(expr)
    return result if isinstance(result, Node) else None


class _Writer:
    """Adds nodes behind the inputs of a graph, each one after those that it reads."""

    def __init__(self, gm: GraphModule) -> None:
        self._graph = gm.graph
        self._placeholders: list[Node] = gm.graph.find_nodes(op="placeholder")
        self.place = self._placeholders[-1].next

    def value(self, expr: sympy.Expr) -> Value | None:
        """Return what holds the number `expr`, or None if the inputs do not determine it."""
        if expr.is_Integer:
            return int(expr)
        if expr.is_number:
            return float(expr)
        if expr.is_Symbol:
            return self._read(expr)
        values = [self.value(part) for part in expr.args]
        if None in values:
            return None
        function = _FUNCTIONS[expr.func]
        if len(values) == 1:
            return self._call(function, *values)
        first, *rest = values
        for value in rest:
            first = self._call(function, first, value)
        return first

    def _read(self, symbol: sympy.Symbol) -> Value | None:
        """Read the symbol off the first input whose size is a multiple of it plus a constant."""
        for placeholder in self._placeholders:
            value = placeholder.meta.get("val")
            if isinstance(value, torch.SymInt) and expression(value) == symbol:
                return placeholder
            shape = value.shape if isinstance(value, torch.Tensor) else ()
            for dim, size in enumerate(shape):
                parts = None if is_static(size) else linear(expression(size))
                if parts is not None and parts[0] == symbol:
                    _, factor, offset = parts
                    read = self._call(aten.sym_size.int, placeholder, dim)
                    shifted = self._call(operator.sub, read, offset) if offset else read
                    return self._call(operator.floordiv, shifted, factor) if factor > 1 else shifted
        return None

    def _call(self, function: Callable[..., Any], *values: Any) -> Node:
        node = self._graph.call_function(function, values)
        known = (v.meta["val"] if isinstance(v, Node) else v for v in values)
        node.meta["val"] = function(*known)
        return node
