"""Merge views in a row into one SHUFFLE if it can do all of them: transpose, reshape, transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from ..engines.network import Network

__all__ = ["Shuffles"]


@dataclass
class _Shuffle:
    """One SHUFFLE, with those of its three steps that are taken."""

    layer: Any
    first: Sequence[int] | None = None
    reshaped: bool = False
    second: Sequence[int] | None = None

    @property
    def output(self) -> Any:
        return self.layer.get_output(0)


class Shuffles:
    """The SHUFFLEs that view nodes of one network end in.

    A view that is the only reader of another view extends that one's layer. The layer then gives
    the second view's result and no longer the first one's.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._last: dict[Node, _Shuffle] = {}

    def permute(self, node: Node, x: Any, order: Sequence[int]) -> Any:
        """Put the dimensions of `x` into `order`, as the result of `node` and for no other use."""
        shuffle = self._before(node, x) or self._add(x)
        if shuffle.reshaped:
            shuffle.second = _after(shuffle.second, order)
            shuffle.layer.second_transpose = tuple(shuffle.second)
        else:
            shuffle.first = _after(shuffle.first, order)
            shuffle.layer.first_transpose = tuple(shuffle.first)
        self._last[node] = shuffle
        return shuffle.output

    def reshape(self, node: Node, x: Any, sizes: Sequence[int]) -> Any:
        """Reshape `x` to `sizes`, as the result of `node` and for no other use.

        Args:
            sizes: as SHUFFLE takes them: 0 copies a size of `x`, one -1 is worked out.
        """
        shuffle = self._before(node, x)
        if shuffle is None or shuffle.second is not None or (shuffle.reshaped and 0 in sizes):
            shuffle = self._add(x)
        shuffle.layer.reshape_dims = tuple(sizes)
        shuffle.reshaped = True
        self._last[node] = shuffle
        return shuffle.output

    def _add(self, x: Any) -> _Shuffle:
        return _Shuffle(self._network.definition.add_shuffle(x))

    def _before(self, node: Node, x: Any) -> _Shuffle | None:
        """Return the SHUFFLE that gives `x`, if `x` is the result of a view that only `node`
        reads."""
        while len(node.all_input_nodes) == 1:
            (node,) = node.all_input_nodes
            if len(node.users) > 1:
                return None
            if (shuffle := self._last.get(node)) is not None:
                # Between them there are at most copies, which an engine does without.
                return shuffle if shuffle.output.name == x.name else None
        return None


def _after(first: Sequence[int] | None, then: Sequence[int]) -> list[int]:
    """Compose two permutations into one."""
    return list(then) if first is None else [first[dim] for dim in then]
