"""Detects calls whose inputs share memory that a graph writes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from ..graph.aliases import Aliases
from ..graph.weights import attribute
from .copies import memory_of

__all__ = ["Writes"]


class Writes:
    """The inputs and the weights that a graph writes to.

    A graph is captured for inputs that share no memory. If it writes to memory that inputs share,
    it may read the old values where PyTorch reads the new ones, or the other way round.
    """

    def __init__(
        self, inputs: Sequence[int], weights: Iterable[torch.Tensor], held: Iterable[torch.Tensor]
    ) -> None:
        """Note the positions of the inputs among all, and the memory of tensors.

        Args:
            weights: the weights that the graph writes to.
            held: all weights of the module.
        """
        self._inputs = tuple(inputs)
        self._weights = [memory for tensor in weights if (memory := _reach(tensor))]
        self._held = [memory for tensor in held if (memory := _reach(tensor))]

    @classmethod
    def of(cls, graph: GraphModule, held: Iterable[torch.Tensor]) -> Writes | None:
        """Find the writes of `graph`; return None if it writes to no input and no weight."""
        aliases = Aliases(graph)
        placeholders = graph.graph.find_nodes(op="placeholder")
        inputs = [i for i, node in enumerate(placeholders) if aliases.is_written(node)]
        weights = [
            attribute(graph, node)
            for node in graph.graph.find_nodes(op="get_attr")
            if aliases.is_written(node)
        ]
        return cls(inputs, weights, held) if inputs or weights else None

    def conflict(self, values: Sequence[Any]) -> str | None:
        """Return why the graph cannot run with `values`, one for each input, or None."""
        memories = [_reach(v) if isinstance(v, torch.Tensor) else None for v in values]
        for memory in memories:
            if memory is not None and _overlaps(memory, self._weights):
                return "an input shares memory with a buffer that the model writes to"
        for i in self._inputs:
            others = [one for j, one in enumerate(memories) if j != i and one is not None]
            memory = memories[i]
            if memory is not None and _overlaps(memory, [*others, *self._held]):
                return "an input that the model writes to shares memory with another tensor"
        return None


def _reach(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Return the address of a tensor's first element and that after its last; None if it is empty.

    Addresses of storages would not do: caches are often disjoint slices of one storage.
    """
    memory = memory_of(tensor)
    if memory is None or not tensor.numel():
        return None
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in pairs)
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def _overlaps(memory: tuple[int, int], others: Iterable[tuple[int, int]]) -> bool:
    start, end = memory
    return any(start < its_end and its_start < end for its_start, its_end in others)
