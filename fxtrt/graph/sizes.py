"""Symbolic sizes: the ranges that they may take, and the layers that compute them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import sympy
import torch
from torch.fx import Graph
from torch.fx.experimental.symbolic_shapes import (
    ShapeEnv,
    free_unbacked_symbols,
)
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

__all__ = [
    "UNBOUNDED_HINT",
    "Size",
    "expression",
    "hint",
    "input_sizes",
    "is_infinite",
    "is_static",
    "is_unbacked",
    "memory_order",
    "number_range",
    "size_range",
]

Size = int | torch.SymInt

UNBOUNDED_HINT = 1000


def is_static(size: Size) -> bool:
    """Whether a size is one number, known now."""
    return isinstance(size, int) or bool(size.node.expr.is_number)


def expression(size: Size) -> sympy.Expr:
    """A size as an expression of the graph's symbols."""
    if is_static(size):
        return sympy.Integer(int(size))
    assert isinstance(size, torch.SymInt)
    return size.node.expr


def is_unbacked(size: Size) -> bool:
    """Whether a size depends on data (the count of a nonzero, say)."""
    return not is_static(size) and bool(free_unbacked_symbols(size))


def hint(size: Size) -> int:
    """The size that the example inputs had; where it depends on data, the largest that it can be.

    One without a bound counts as `UNBOUNDED_HINT`.
    """
    if is_static(size):
        return int(size)
    assert isinstance(size, torch.SymInt)
    if not is_unbacked(size):
        assert isinstance(size.node.hint, int)
        return size.node.hint
    environment = size.node.shape_env
    assert environment is not None
    values = {
        symbol: environment.backed_var_to_val.get(symbol, _largest(symbol, environment))
        for symbol in size.node.expr.free_symbols
    }
    return int(size.node.expr.xreplace(values))


def size_range(size: Size) -> tuple[int, int | None]:
    """The smallest and largest value; None where nothing bounds it from above."""
    low, high = number_range(size)
    return max(0, low or 0), high


def number_range(size: Size) -> tuple[int | None, int | None]:
    """The smallest and largest value of what may be negative; None where nothing bounds it."""
    if is_static(size):
        return int(size), int(size)
    assert isinstance(size, torch.SymInt)
    environment = size.node.shape_env
    assert environment is not None
    expr, ranges = size.node.expr, environment.var_to_range
    bounds = _bounds(expr, tuple((s, ranges[s]) for s in expr.free_symbols if s in ranges))
    high = None if is_infinite(bounds.upper) else int(bounds.upper)
    low = None if is_infinite(-bounds.lower) else int(bounds.lower)
    return low, high


@lru_cache(maxsize=4096)
def _bounds(
    expr: sympy.Expr, ranges: tuple[tuple[sympy.Symbol, ValueRanges[Any]], ...]
) -> ValueRanges[Any]:
    # The same few sizes are asked for at every node.
    return bound_sympy(expr, dict(ranges))


def _largest(symbol: sympy.Symbol, environment: ShapeEnv) -> sympy.Integer:
    upper = environment.var_to_range[symbol].upper
    return sympy.Integer(UNBOUNDED_HINT if is_infinite(upper) else int(upper))


def memory_order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The dimensions from outermost to innermost in memory; None where they lie in order.

    None also for what is not dense (an expanded tensor): no memory of its own can be like it.
    """
    sizes, strides = [hint(s) for s in tensor.shape], [hint(s) for s in tensor.stride()]
    order = sorted(range(len(sizes)), key=lambda dim: (-strides[dim], dim))
    expected = 1
    for dim in reversed(order):
        if sizes[dim] != 1 and strides[dim] != expected:
            return None
        expected *= max(1, sizes[dim])
    wide = [dim for dim in order if sizes[dim] != 1]
    return None if wide == sorted(wide) else tuple(order)


def is_infinite(bound: Any) -> bool:
    """Whether an upper bound of a range is none."""
    # torch takes sys.maxsize - 1 and its neighbours for "no bound" in several places.
    return bool(bound in (int_oo, sympy.oo)) or int(bound) >= 2**62


def input_sizes(graph: Graph) -> frozenset[sympy.Symbol]:
    """The symbols that the sizes of a graph's input tensors are made of."""
    symbols: set[sympy.Symbol] = set()
    for placeholder in graph.find_nodes(op="placeholder"):
        fake = placeholder.meta.get("val")
        sizes: Sequence[Size] = fake.shape if isinstance(fake, torch.Tensor) else ()
        for size in sizes:
            if isinstance(size, torch.SymInt):
                symbols |= size.node.expr.free_symbols
    return frozenset(symbols)
