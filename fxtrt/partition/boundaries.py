"""Finds the cuts of a partition: the values that pass between clusters and PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from torch.fx import GraphModule, Node

from ..graph.nodes import is_size

__all__ = ["PYTORCH", "crossings"]

PYTORCH = -1
"""The side of everything that is in no cluster."""


def crossings(gm: GraphModule, sides: Mapping[Node, int]) -> dict[Node, set[int]]:
    """Return the tensors that one side makes and other sides read, each with those sides.

    The graph's inputs, weights and results do not count, and sizes travel as numbers. But if only
    the size of a cluster's tensor is needed outside, the cluster gives PyTorch that tensor.

    Args:
        sides: the index of the cluster of each node that is in one; all else is on `PYTORCH`.
    """
    readers: dict[Node, set[int]] = {}
    found: dict[Node, set[int]] = {}
    for node in reversed(gm.graph.nodes):
        if is_size(node):
            readers[node] = set(
                chain.from_iterable(readers.get(u, {sides.get(u, PYTORCH)}) for u in node.users)
            )
        elif node.op.startswith("call_"):
            home = sides.get(node, PYTORCH)
            if others := _readers(node, sides, readers, home) - {home}:
                found[node] = others
    return found


def _readers(
    node: Node, sides: Mapping[Node, int], size_readers: Mapping[Node, set[int]], home: int
) -> set[int]:
    found = set()
    for user in node.users:
        if user in size_readers:
            if home != PYTORCH and not size_readers[user] <= {home}:
                found.add(PYTORCH)
        elif user.op != "output":
            found.add(sides.get(user, PYTORCH))
    return found
