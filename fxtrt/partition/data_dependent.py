"""Why an engine cannot run a node whose sizes depend on data, and may be 0."""

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
    """Why a node stays in PyTorch on account of sizes that depend on data, or None.

    Such a size must be the size of a tensor that the node takes: an engine reads it there. And
    where it is 0 the node's result must be empty too, since then the whole cluster runs in PyTorch.

    Args:
        taken, given: the node's inputs and its outputs, with symbolic shapes.
        numbers: its arguments that are numbers.
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
    """Whether layers can compute a size from those that are known and from the graph's own."""
    solved = {parts[0] for other in known if (parts := linear(other))}
    backed = {symbol for symbol in expr.free_symbols if not free_unbacked_symbols(symbol)}
    return has_layers(expr, known | solved | backed)


def _is_empty_at_0(tensor: torch.Tensor, symbol: sympy.Symbol) -> bool:
    return any(
        expression(size).xreplace({symbol: sympy.Integer(0)}) == 0
        for size in tensor.shape
        if is_unbacked(size)
    )
