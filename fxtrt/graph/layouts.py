"""Says which calls of a graph that reads memory by strides are laid out unlike its example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule

from .sizes import Size, is_static

__all__ = ["Layouts"]

Layout = tuple[tuple[Size | None, ...], Size | None]


class Layouts:
    """The strides and storage offsets of a graph's inputs; sizes of 1 and symbols count as None.

    Only `as_strided` answers by the layout of a tensor. An engine has contiguous ones, and PyTorch
    hands the strides of its inputs on from operator to operator.
    """

    def __init__(self, fakes: Sequence[Any]) -> None:
        """Note the values that the placeholders of the graph were traced with."""
        self._expected = [
            _layout(fake) if isinstance(fake, torch.Tensor) else None for fake in fakes
        ]

    @classmethod
    def of(cls, graph: GraphModule) -> Layouts | None:
        """Return the layouts of `graph`, or None if neither it nor a cluster in it reads them."""
        parts = [module for module in graph.modules() if isinstance(module, GraphModule)]
        if not any(_reads_by_stride(node.target) for part in parts for node in part.graph.nodes):
            return None
        return cls([node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")])

    def mismatch(self, values: Sequence[Any]) -> str | None:
        """Return why the graph cannot run with `values`, one for each placeholder, or None."""
        for expected, value in zip(self._expected, values, strict=True):
            if expected is None or not isinstance(value, torch.Tensor):
                continue
            strides, offset = _layout(value)
            pairs = zip((*expected[0], expected[1]), (*strides, offset), strict=True)
            if any(old is not None and new is not None and old != new for old, new in pairs):
                return "an input has other strides than the example's, which the model reads"
        return None


def _layout(tensor: torch.Tensor) -> Layout:
    if tensor.layout != torch.strided:
        return (None,) * tensor.dim(), None
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    strides = (None if _is_one(size) else _known(stride) for size, stride in pairs)
    return tuple(strides), _known(tensor.storage_offset())


def _is_one(size: Size) -> bool:
    return is_static(size) and int(size) == 1


def _known(number: Size) -> Size | None:
    return int(number) if is_static(number) else None


def _reads_by_stride(target: Any) -> bool:
    return isinstance(target, OpOverload) and "as_strided" in target._schema.name
