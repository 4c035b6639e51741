"""Rejects nodes whose sizes depend on data in ways that an engine cannot follow."""

from __future__ import annotations

from collections.abc import Sequence, Set

import sympy
import torch
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ..conversion.shape_layers import has_layers
from ..graph.size_relations import linear
from ..graph.sizes import (
    Size,
    expression,
    is_static,
    is_unbacked,
)

__all__ = ["data_dependent"]


def data_dependent(
    taken: Sequence[torch.Tensor], given: Sequence[torch.Tensor], numbers: Sequence[torch.SymInt]
) -> str | None:
    """Return why a node stays in PyTorch because of sizes that depend on data, or None.

    Such a size must be the size of a tensor that the node takes, because an engine reads it there.
    And if it is 0, the node's result must be empty too: the whole cluster then runs in PyTorch.

    Args:
        taken, given: the node's inputs and its outputs, with symbolic shapes.
        numbers: the arguments that are numbers.
    """
    known = {expression(size) for tensor in taken for size in tensor.shape if not is_static(size)}
    sizes: list[Size] = [*numbers, *(size for tensor in given for size in tensor.shape)]
    for size in sizes:
        if is_unbacked(size) and not _is_determined(expression(size), known):
            return f"no input has the size {size}, which depends on data"
    symbols = {symbol for expr in known for symbol in free_unbacked_symbols(expr)}
    for symbol in sorted(symbols, key=str):
        if any(_is_empty_at_0(t, symbol) for t in taken) and not all(
            _is_empty_at_0(t, symbol) for t in given
        ):
            return f"an input is empty where {symbol} is 0, the result is not"
    return None


def _is_determined(expr: sympy.Expr, known: Set[sympy.Expr]) -> bool:
    """Return whether layers can compute a size from those that are known or of the graph."""
    solved = {parts[0] for other in known if (parts := linear(other))}
    backed = {symbol for symbol in expr.free_symbols if not free_unbacked_symbols(symbol)}
    return has_layers(expr, known | solved | backed)


def _is_empty_at_0(tensor: torch.Tensor, symbol: sympy.Symbol) -> bool:
    return any(
        expression(size).xreplace({symbol: sympy.Integer(0)}) == 0
        for size in tensor.shape
        if is_unbacked(size)
    )
