"""Estimates whether an engine without convolutions and products saves more time than it costs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence, Set
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.utils import _pytree as pytree

from ..graph.nodes import computes, is_size
from ..graph.sizes import hint, memory_order
from ..registry import is_view

__all__ = ["Worth", "worth"]

LAUNCH_US = 5.0
"""The time in which PyTorch calls one operator that launches a kernel, on a server's CPU. A slower
host is slower at all of these; only their ratios decide."""
ENGINE_US = 50.0
"""The time of an engine's call besides its kernels: checks of the inputs, a slot, TensorRT's
enqueue, and waiting for streams. That is ten launches."""
BINDING_US = 2.0
"""The time for each tensor at an engine's boundary: a check or an allocation, and an address."""
BYTES_PER_US = 1_500_000
"""The bytes that a data-centre GPU reads or writes in a microsecond (1.5 TB/s)."""


@dataclass(frozen=True, slots=True)
class Worth:
    """The gains and costs of an engine in a call, in microseconds, at the example's sizes.

    launches:  how many kernels fewer than in PyTorch.
    bytes:     how many bytes less are written and read between kernels.
    crossings: how many tensors enter and leave.
    """

    launches: int
    bytes: int
    crossings: int
    saves_us: float
    costs_us: float

    def __str__(self) -> str:
        return (
            f"an engine would save about {self.saves_us:.0f} us a call ({self.launches} launches, "
            f"{self.bytes} bytes between them) and cost {self.costs_us:.0f} us (a call of an "
            f"engine with {self.crossings} tensors in and out)"
        )


def worth(nodes: Sequence[Node]) -> Worth:
    """Estimate the engine of a cluster.

    PyTorch launches a kernel for each operator but views. An engine launches one for each group of
    pointwise operators that are connected, reshapes between them included, and one for each other
    operator, the views among them that select or permute: a layer copies what it is given. What a
    group alone reads is never written to memory. A tensor that enters or leaves is copied where its
    memory order is not that of its dimensions, which engines take and give.
    """
    calls = [node for node in nodes if isinstance(node.target, OpOverload) and not is_size(node)]
    groups = _pointwise_groups(calls)
    others = sum(not _is_pointwise(node) and not _is_reshape(node) for node in calls)
    launches = sum(not _is_view(node) for node in calls) - others - len(groups)
    kept = [node for group in groups for node in group if _is_pointwise(node)]
    inner = {node: group for group in groups for node in group}
    saved_bytes = sum(2 * _bytes(node) for node in kept if _stays_in(node, inner[node]))
    crossing = _crossing(nodes)
    copied = [node for node in crossing if _is_copied(node)]
    costs = ENGINE_US + BINDING_US * len(crossing) + LAUNCH_US * len(copied)
    costs += 2 * sum(map(_bytes, copied)) / BYTES_PER_US
    saves = LAUNCH_US * launches + saved_bytes / BYTES_PER_US
    return Worth(launches, saved_bytes, len(crossing), saves, costs)


def _pointwise_groups(calls: Sequence[Node]) -> list[set[Node]]:
    """Return the connected parts of pointwise operators and reshapes that compute."""
    among = {node for node in calls if _is_pointwise(node) or _is_reshape(node)}
    groups: list[set[Node]] = []
    seen: set[Node] = set()
    for start in calls:
        if start not in among or start in seen:
            continue
        group, pending = {start}, [start]
        while pending:
            node = pending.pop()
            new = ({*node.all_input_nodes, *node.users} & among) - group
            group |= new
            pending += new
        seen |= group
        if any(map(_is_pointwise, group)):
            groups.append(group)
    return groups


def _stays_in(node: Node, group: Set[Node]) -> bool:
    """Return whether only the group reads a value, or reshapes of it."""
    return all(
        user in group and (not _is_reshape(user) or _stays_in(user, group))
        for user in node.users
        if not is_size(user)
    )


def _crossing(nodes: Sequence[Node]) -> list[Node]:
    """Return the tensors that enter and leave a cluster, but no weights."""
    members = set(nodes)
    entering = (source for node in nodes for source in node.all_input_nodes)
    outside = (n for n in entering if n not in members and n.op != "get_attr" and not is_size(n))
    leaving = (node for node in nodes if any(_is_outside(u, members) for u in node.users))
    return list(dict.fromkeys((*outside, *leaving)))


def _is_outside(user: Node, members: Collection[Node]) -> bool:
    return user not in members and not is_size(user)


def _is_view(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and is_view(node.target)


def _is_reshape(node: Node) -> bool:
    """Return whether a node is a view of all its input, in the same order."""
    if not _is_view(node) or any(memory_order(value) is not None for value in _tensors(node)):
        return False
    source = node.args[0]
    return isinstance(source, Node) and _bytes(source) == _bytes(node)


def _is_pointwise(node: Node) -> bool:
    """Return whether a kernel handles each element alone, as casts and copies do too."""
    if not isinstance(node.target, OpOverload) or is_view(node.target):
        return False
    return not computes(node) or torch.Tag.pointwise in node.target.tags


def _is_copied(node: Node) -> bool:
    return any(memory_order(value) is not None for value in _tensors(node))


def _bytes(node: Node) -> int:
    return sum(v.element_size() * math.prod(map(hint, v.shape)) for v in _tensors(node))


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    values = pytree.tree_leaves(node.meta.get("val"))
    return (value for value in values if isinstance(value, torch.Tensor))
