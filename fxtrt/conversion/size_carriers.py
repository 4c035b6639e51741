"""Decide what a cluster's engine takes: its tensors, and carriers of sizes that none of them has.

TensorRT reads sizes off tensors. A number that comes from elsewhere (the height of an image, where
only the boxes in it enter the cluster), or that takes floats to compute, travels as the size of a
tensor whose values nobody reads. One that may be negative is carried with a constant added.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..graph.size_relations import linear
from ..graph.sizes import (
    UNBOUNDED_HINT,
    expression,
    hint,
    is_static,
    is_unbacked,
    number_range,
)
from .shape_layers import has_layers

__all__ = ["CARRIER_DTYPE", "Taker", "carried_size", "engine_inputs", "missing_sizes"]

CARRIER_DTYPE = torch.float32

Number = torch.SymInt | torch.SymFloat | torch.SymBool | int | float


def engine_inputs(cluster: GraphModule) -> list[Node]:
    """Return the placeholders that are inputs of the engine: tensors and carried sizes."""
    placeholders = cluster.graph.find_nodes(op="placeholder")
    fakes = [node.meta["val"] for node in placeholders]
    known = _Known(fake for fake in fakes if isinstance(fake, torch.Tensor))
    return [
        node
        for node, fake in zip(placeholders, fakes, strict=True)
        if isinstance(fake, torch.Tensor) or known.adds(fake)
    ]


def missing_sizes(
    taken: Iterable[torch.Tensor | Number], needed: Iterable[torch.Tensor | Number]
) -> list[torch.SymInt]:
    """Return the sizes of what a cluster computes that layers cannot compute from `taken`.

    Args:
        taken: the values that enter the cluster.
        needed: the results of its nodes and the numbers among their arguments.
    """
    values = list(taken)
    known = _Known(value for value in values if isinstance(value, torch.Tensor))
    for number in values:
        known.adds(number)
    sizes = (
        size
        for value in needed
        for size in (value.shape if isinstance(value, torch.Tensor) else (value,))
    )
    # A size that depends on data is read from a tensor that has it.
    return [
        size
        for size in sizes
        if isinstance(size, torch.SymInt) and not is_unbacked(size) and known.adds(size)
    ]


def carried_size(number: torch.SymInt) -> torch.SymInt:
    """Return the size of the tensor that carries `number`."""
    return number + _shift(number)


class _Known:
    """The sizes that an engine knows: those of its inputs, and what layers compute from them."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._sizes: set[sympy.Expr] = set()
        for tensor in tensors:
            for size in tensor.shape:
                self._add(expression(size))

    def adds(self, number: object) -> bool:
        """Add a number to what is known; return whether it was an unknown size."""
        if not isinstance(number, torch.SymInt) or is_static(number):
            return False
        expr = expression(number)
        if has_layers(expr, self._sizes):
            self._sizes.add(expr)
            return False
        self._add(expression(carried_size(number)))
        self._sizes.add(expr)
        return True

    def _add(self, expr: sympy.Expr) -> None:
        self._sizes.add(expr)
        if parts := linear(expr):
            self._sizes.add(parts[0])


def _shift(number: torch.SymInt) -> int:
    """Return what to add to a number that may be negative, so that its lowest value is a size."""
    low, _ = number_range(number)
    if low is None:
        low = -2 * max(UNBOUNDED_HINT, -hint(number))
    return 1 - low if low < 0 else 0


class Taker:
    """Makes an engine's inputs of its cluster's arguments."""

    def __init__(self, cluster: GraphModule) -> None:
        chosen = set(engine_inputs(cluster))
        placeholders = cluster.graph.find_nodes(op="placeholder")
        self._positions = tuple(i for i, node in enumerate(placeholders) if node in chosen)
        self._shifts = {
            i: _shift(node.meta["val"])
            for i, node in enumerate(placeholders)
            if node in chosen and isinstance(node.meta["val"], torch.SymInt)
        }
        results = pytree.tree_leaves(cluster.graph.output_node().args)
        self._device = results[0].meta["val"].device

    def __call__(self, arguments: Sequence[torch.Tensor | int]) -> list[torch.Tensor]:
        """Return the tensors, and a tensor without values for each carried size."""
        return [self._taken(arguments[i], i) for i in self._positions]

    def _taken(self, argument: torch.Tensor | int, position: int) -> torch.Tensor:
        if isinstance(argument, torch.Tensor):
            return argument
        # Without a tensor of its size, an empty one makes the cluster run in PyTorch.
        size = max(0, argument + self._shifts[position])
        return torch.empty(size, dtype=CARRIER_DTYPE, device=self._device)
