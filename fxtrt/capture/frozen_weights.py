"""Turns a Dynamo graph into one whose weights are constants, and detects when they change."""

from __future__ import annotations

import copy
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule

from ..forks import ForkLock
from ..graph.weight_states import Snapshot

__all__ = [
    "FrozenGraph",
    "freeze",
]

log = logging.getLogger(__name__)


class FrozenGraph:
    """Runs a graph compiled with frozen weights, under the signature of the graph.

    Dynamo passes the weights at every call. Modules of one class share their graph, so it is
    compiled once for each set of weights. It is compiled again after a write to one of them (an
    optimizer step, `load_state_dict`), so engines never answer with old weights.
    """

    def __init__(
        self,
        gm: GraphModule,
        weights: Mapping[int, torch.Tensor],
        compile_frozen: Callable[[GraphModule], Callable[..., Any]],
        check_weights: str = "versions",
    ) -> None:
        """Keep what `compile` needs.

        Args:
            weights: the tensors by the position of the input where they are passed.
            compile_frozen: compiles the frozen graph, whose inputs are the remaining ones.
            check_weights: as in `Settings`.
        """
        self._gm = gm
        self._compile = compile_frozen
        self._check = check_weights
        self._lock = ForkLock()
        count = len(gm.graph.find_nodes(op="placeholder"))
        self._positions = tuple(weights)
        self._rest = tuple(i for i in range(count) if i not in weights)
        self._weights = dict(weights)
        self._latest: _Frozen | None = None
        self._known: dict[tuple[int, ...], _Frozen] = {}

    def compile(self) -> None:
        """Compile for the weights that the graph was captured with, before the first call."""
        self._latest = self._freeze(list(self._weights.values()))
        self._weights.clear()

    def __call__(self, *args: Any) -> Any:
        weights = [args[i] for i in self._positions]
        frozen = self._latest
        if frozen is None or not frozen.fits(weights):
            frozen = self._latest = self._find(weights)
        return frozen.compiled(*(args[i] for i in self._rest))

    def _find(self, weights: Sequence[torch.Tensor]) -> _Frozen:
        with self._lock():
            frozen = self._known.get(tuple(map(id, weights)))
            if frozen is not None and frozen.fits(weights):
                return frozen
            if frozen is not None:
                log.warning("weights changed since the engines were built: building them again")
            return self._freeze(weights)

    def _freeze(self, weights: Sequence[torch.Tensor]) -> _Frozen:
        # The states are read first, so that a write during compilation is noticed afterwards.
        seen = tuple(weakref.ref(t, self._forget) for t in weights)
        snapshot = Snapshot(weights, self._check)
        named = dict(zip(self._positions, weights, strict=True))
        frozen = _Frozen(seen, snapshot, self._compile(freeze(self._gm, named)))
        self._known[tuple(map(id, weights))] = frozen
        return frozen

    def _forget(self, _: weakref.ref[torch.Tensor]) -> None:
        """Release the engines of a deleted model, which Dynamo would keep for long."""
        # This takes no lock, because the garbage collector may call it while the lock is held.
        self._known = {key: frozen for key, frozen in self._known.items() if frozen.is_alive()}
        if self._latest is not None and not self._latest.is_alive():
            self._latest = None


@dataclass(frozen=True, slots=True)
class _Frozen:
    """A compiled graph with weak references to the weights that it was compiled for."""

    seen: tuple[weakref.ref[torch.Tensor], ...]
    snapshot: Snapshot
    compiled: Callable[..., Any]

    def fits(self, weights: Sequence[torch.Tensor]) -> bool:
        same = all(seen() is tensor for seen, tensor in zip(self.seen, weights, strict=True))
        return same and self.snapshot.holds(weights)

    def is_alive(self) -> bool:
        return all(seen() is not None for seen in self.seen)


def freeze(gm: GraphModule, weights: Mapping[int, torch.Tensor]) -> GraphModule:
    """Return a copy of `gm` in which the inputs at these positions are `get_attr` nodes."""
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
