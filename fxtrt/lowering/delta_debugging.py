"""Searches the nodes of a cluster for the few that make it fail, by leaving out ever more."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch.fx import Node

from ..errors import FxtrtError

__all__ = ["first_wrong", "smallest_failing"]

_MOST_TRIALS = 32

Unit = list[Node]
"""A call with the `getitem`s that read it, which cannot be parted."""
E = TypeVar("E", bound=FxtrtError)


def smallest_failing(
    nodes: Sequence[Node], error: E, fails: Callable[[Sequence[Node]], FxtrtError | None]
) -> tuple[list[Node], E]:
    """Return a small part of `nodes` that fails as they do, and its error.

    This is delta debugging: the search goes on with any half, quarter and so on, or all but one of
    these, that fails with an error of the same type. It ends after 32 trials at the latest, with
    the smallest part that was found.

    Args:
        error: the error that `nodes` together fail with.
        fails: builds a part of them, and returns the error that it fails with, or None.
    """
    units, pieces, trials = _units(nodes), 2, 0
    while len(units) > 1 and trials < _MOST_TRIALS:
        for candidate in _candidates(units, pieces)[: _MOST_TRIALS - trials]:
            trials += 1
            found = fails(_flat(candidate))
            if isinstance(found, type(error)):
                units, error, pieces = candidate, found, 2
                break
        else:
            if pieces >= len(units):
                break
            pieces = min(2 * pieces, len(units))
    return _flat(units), error


def first_wrong(nodes: Sequence[Node], is_wrong: Callable[[Sequence[Node]], bool]) -> Node:
    """Return the node with which a prefix of `nodes` becomes wrong, as all of them are."""
    units = _units(nodes)
    right, wrong = 0, len(units)
    while wrong - right > 1:
        middle = (right + wrong) // 2
        if is_wrong(_flat(units[:middle])):
            wrong = middle
        else:
            right = middle
    return units[right][0]


def _candidates(units: list[Unit], pieces: int) -> list[list[Unit]]:
    """Return each of `pieces` parts alone, then all units without each of them."""
    step = -(-len(units) // pieces)
    starts = range(0, len(units), step)
    parts = [units[i : i + step] for i in starts]
    return parts + [units[:i] + units[i + step :] for i in starts if pieces > 2]


def _units(nodes: Sequence[Node]) -> list[Unit]:
    units: dict[Node, Unit] = {}
    for node in nodes:
        if node.target is operator.getitem and node.args[0] in units:
            units[node.all_input_nodes[0]].append(node)
        else:
            units[node] = [node]
    return list(units.values())


def _flat(units: Sequence[Unit]) -> list[Node]:
    return [node for unit in units for node in unit]
