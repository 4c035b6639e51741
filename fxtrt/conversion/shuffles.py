"""Views in a row become one SHUFFLE, where transpose, reshape, transpose is all that they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from ..engines.network import Network

__all__ = ["Shuffles"]


@dataclass
class _Shuffle:
    """One SHUFFLE, and which of its three steps are taken."""

    layer: Any
    first: Sequence[int] | None = None
    reshaped: bool = False
    second: Sequence[int] | None = None

    @property
    def output(self) -> Any:
        return self.layer.get_output(0)


class Shuffles:
    """The SHUFFLEs that view nodes of one network end in.

    A view that alone reads the view before it adds its work to that one's layer, which then gives
    the second view's result: the first one's is gone.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._last: dict[Node, _Shuffle] = {}

    def permute(self, node: Node, x: Any, order: Sequence[int]) -> Any:
        """`x` with its dimensions in `order`, as the result of `node` and for nothing else."""
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
        """`x` in the shape `sizes`, as the result of `node` and for nothing else.

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
        """The SHUFFLE that gives `x`, if it is a view's result that only `node` reads."""
        while len(node.all_input_nodes) == 1:
            (node,) = node.all_input_nodes
            if len(node.users) > 1:
                return None
            if (shuffle := self._last.get(node)) is not None:
                # Between them there are at most copies, which an engine does without.
                return shuffle if shuffle.output.name == x.name else None
        return None


def _after(first: Sequence[int] | None, then: Sequence[int]) -> list[int]:
    """One order for two permutations in a row."""
    return list(then) if first is None else [first[dim] for dim in then]
