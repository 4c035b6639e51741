"""Decides what a cluster's engine takes: its tensors, and carriers of sizes that none of them has.

TensorRT reads sizes off tensors. A number that comes from elsewhere (the height of an image, where
only the boxes in it enter the cluster), or that takes floats to compute, travels as the size of a
tensor whose values nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from .relations import linear
from .shape_layers import has_layers
from .shapes import expression, is_static, size_range

__all__ = ["CARRIER_DTYPE", "Taker", "engine_inputs"]

CARRIER_DTYPE = torch.float32


def engine_inputs(cluster: GraphModule) -> list[Node]:
    """The placeholders that are inputs of the engine, in order: tensors and carried sizes."""
    placeholders = cluster.graph.find_nodes(op="placeholder")
    tensors = [node for node in placeholders if isinstance(node.meta["val"], torch.Tensor)]
    known = {expression(size) for node in tensors for size in node.meta["val"].shape}
    chosen = set(tensors)
    for node in placeholders:
        if not _is_dynamic(node) or size_range(node.meta["val"])[0] < 1:
            continue
        expr = expression(node.meta["val"])
        solved = {parts[0] for other in known if (parts := linear(other))}
        if not has_layers(expr, known | solved):
            known.add(expr)
            chosen.add(node)
    return [node for node in placeholders if node in chosen]


class Taker:
    """Makes an engine's inputs of its cluster's arguments."""

    def __init__(self, cluster: GraphModule) -> None:
        chosen = set(engine_inputs(cluster))
        placeholders = cluster.graph.find_nodes(op="placeholder")
        self._positions = tuple(i for i, node in enumerate(placeholders) if node in chosen)
        results = pytree.tree_leaves(cluster.graph.output_node().args)
        self._device = results[0].meta["val"].device

    def __call__(self, arguments: Sequence[torch.Tensor | int]) -> list[torch.Tensor]:
        """The tensors, and a tensor without values for each carried size."""
        return [self._taken(arguments[i]) for i in self._positions]

    def _taken(self, argument: torch.Tensor | int) -> torch.Tensor:
        if isinstance(argument, torch.Tensor):
            return argument
        # A negative number is no size: an empty tensor makes the cluster run in PyTorch.
        return torch.empty(max(0, argument), dtype=CARRIER_DTYPE, device=self._device)


def _is_dynamic(node: Node) -> bool:
    value = node.meta["val"]
    return isinstance(value, torch.SymInt) and not is_static(value)
