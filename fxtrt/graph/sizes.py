"""Read symbolic sizes: their expressions, the ranges that they may take, and their hints."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
"""The hint of a size that depends on data and has no upper bound."""


def is_static(size: Size) -> bool:
    """Return whether a size is a number that is known now."""
    return isinstance(size, int) or bool(size.node.expr.is_number)


def expression(size: Size) -> sympy.Expr:
    """Return a size as an expression of the graph's symbols."""
    if is_static(size):
        return sympy.Integer(int(size))
    assert isinstance(size, torch.SymInt)
    return size.node.expr


def is_unbacked(size: Size) -> bool:
    """Return whether a size depends on data (the count of a nonzero, say)."""
    return not is_static(size) and bool(free_unbacked_symbols(size))


def hint(size: Size) -> int:
    """Return the size at the example inputs.

    A size that depends on data counts as its largest value, or `UNBOUNDED_HINT` without a bound.
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


def hint_at_most(size: Size, symbols: Collection[sympy.Symbol]) -> int:
    """Return the size of the example, but with `symbols` at their largest values."""
    if is_static(size) or not symbols:
        return hint(size)
    assert isinstance(size, torch.SymInt)
    environment = size.node.shape_env
    assert environment is not None
    values = {
        symbol: _largest(symbol, environment)
        if symbol in symbols
        else environment.backed_var_to_val.get(symbol, _largest(symbol, environment))
        for symbol in size.node.expr.free_symbols
    }
    return int(size.node.expr.xreplace(values))


def size_range(size: Size) -> tuple[int, int | None]:
    """Return the smallest and largest value of a size; None stands for no upper bound."""
    low, high = number_range(size)
    return max(0, low or 0), high


def number_range(size: Size) -> tuple[int | None, int | None]:
    """Return the smallest and largest value of a number, negative ones too; None for no bound."""
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
    # It is cached because every node asks for the same few sizes.
    return bound_sympy(expr, dict(ranges))


def _largest(symbol: sympy.Symbol, environment: ShapeEnv) -> sympy.Integer:
    upper = environment.var_to_range[symbol].upper
    return sympy.Integer(UNBOUNDED_HINT if is_infinite(upper) else int(upper))


def memory_order(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Return the dimensions from outermost to innermost in memory, or None if they are in order.

    A tensor that is not dense (an expanded one) also gives None, as no dense copy can have its
    strides.
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
    """Return whether an upper bound of a range stands for "no bound"."""
    # In several places torch writes sys.maxsize - 1 or a number near it for "no bound".
    return bool(bound in (int_oo, sympy.oo)) or int(bound) >= 2**62


def input_sizes(graph: Graph) -> frozenset[sympy.Symbol]:
    """Return the symbols in the sizes of a graph's input tensors."""
    symbols: set[sympy.Symbol] = set()
    for placeholder in graph.find_nodes(op="placeholder"):
        fake = placeholder.meta.get("val")
        sizes: Sequence[Size] = fake.shape if isinstance(fake, torch.Tensor) else ()
        for size in sizes:
            if isinstance(size, torch.SymInt):
                symbols |= size.node.expr.free_symbols
    return frozenset(symbols)
