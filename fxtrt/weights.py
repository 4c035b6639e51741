"""Freezes the weights of a Dynamo graph into constants, and notices when they change."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule

__all__ = ["FrozenGraph", "freeze"]

log = logging.getLogger(__name__)


class FrozenGraph:
    """A callable with a graph's own signature that runs it compiled with its weights frozen.

    Dynamo passes weights at every call. When one is another tensor, or has been written to (an
    optimizer step, `load_state_dict`), the graph is compiled again: engines never answer with old
    weights.
    """

    def __init__(
        self,
        gm: GraphModule,
        weights: Mapping[int, torch.Tensor],
        compile_frozen: Callable[[GraphModule], Callable[..., Any]],
    ) -> None:
        """Keep all that `compile` needs.

        Args:
            weights: input position -> the tensor that is passed there.
            compile_frozen: compiles the graph that is left; its inputs are the other ones.
        """
        self._gm = gm
        self._compile = compile_frozen
        self._lock = threading.Lock()
        count = len(gm.graph.find_nodes(op="placeholder"))
        self._positions = tuple(weights)
        self._rest = tuple(i for i in range(count) if i not in weights)
        self._weights = dict(weights)

    def compile(self) -> None:
        """Compile for the weights that the graph was made with; before the first call."""
        self._freeze(self._weights)
        self._weights.clear()

    def __call__(self, *args: Any) -> Any:
        if self._is_stale(args):
            with self._lock:
                if self._is_stale(args):
                    log.warning("weights changed since the engines were built: building them again")
                    self._freeze({i: args[i] for i in self._positions})
        return self._compiled(*(args[i] for i in self._rest))

    def _freeze(self, weights: Mapping[int, torch.Tensor]) -> None:
        compiled = self._compile(freeze(self._gm, weights))
        self._seen = tuple((i, weights[i], _version(weights[i])) for i in self._positions)
        self._compiled = compiled

    def _is_stale(self, args: tuple[Any, ...]) -> bool:
        return any(args[i] is not seen or _version(seen) != v for i, seen, v in self._seen)


def freeze(gm: GraphModule, weights: Mapping[int, torch.Tensor]) -> GraphModule:
    """A copy of `gm` in which the inputs at these positions are `get_attr` weights."""
    frozen = GraphModule(gm, copy.deepcopy(gm.graph))
    placeholders = frozen.graph.find_nodes(op="placeholder")
    for position, tensor in weights.items():
        node = placeholders[position]
        name = f"weight_{node.name}"
        frozen.register_buffer(name, tensor.detach(), persistent=False)
        with frozen.graph.inserting_before(node):
            attribute = frozen.graph.get_attr(name)
        attribute.meta = dict(node.meta)
        node.replace_all_uses_with(attribute)
        frozen.graph.erase_node(node)
    frozen.recompile()
    return frozen


def _version(tensor: torch.Tensor) -> int | None:
    # Tensors made under inference_mode keep no version: they cannot be watched, only compared.
    return None if tensor.is_inference() else tensor._version
