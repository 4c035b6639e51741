"""What kind of call an fx node is: whether it computes, and whether it gives a size."""

from __future__ import annotations

import operator

import torch
from torch._ops import OpOverload
from torch.fx import Node

from ..registry import is_view, registered

__all__ = ["computes", "is_size", "producer", "target_computes"]


def computes(node: Node) -> bool:
    """Whether a node does work, and counts towards a minimum size; views and casts do not."""
    return target_computes(node.target)


def target_computes(target: object) -> bool:
    """`computes` for a call that is no node."""
    if not isinstance(target, OpOverload):
        return False
    converter = registered().get(target)
    return not is_view(target) if converter is None else converter.computes


def is_size(node: Node) -> bool:
    """Whether the node computes a size, or a number on the way to one, and not a tensor."""
    value = node.meta.get("val")
    if isinstance(value, (torch.SymFloat, torch.SymBool)):
        # An operator gives one only by reading the elements of a tensor.
        return node.op == "call_function" and not isinstance(node.target, OpOverload)
    return node.op != "output" and isinstance(value, (torch.SymInt, int, float))


def producer(node: Node) -> Node:
    """The node whose result this is: `getitem` belongs to what it takes from."""
    source = node.args[0] if node.target is operator.getitem else node
    assert isinstance(source, Node)
    return source
