"""Classify fx nodes: those that compute, those that give a size, and `getitem`."""

from __future__ import annotations

import operator

import torch
from torch._ops import OpOverload
from torch.fx import Node

from ..registry import is_view, registered

__all__ = ["computes", "is_size", "producer", "target_computes"]


def computes(node: Node) -> bool:
    """Return whether a node counts towards a cluster's minimum size; views and casts do not."""
    return target_computes(node.target)


def target_computes(target: object) -> bool:
    """Return what `computes` returns, for the target of a call."""
    if not isinstance(target, OpOverload):
        return False
    converter = registered().get(target)
    return not is_view(target) if converter is None else converter.computes


def is_size(node: Node) -> bool:
    """Return whether the node computes a size or a number on the way to one, and no tensor."""
    value = node.meta.get("val")
    if isinstance(value, (torch.SymFloat, torch.SymBool)):
        # An ATen operator returns such a number only if it reads the elements of a tensor.
        return node.op == "call_function" and not isinstance(node.target, OpOverload)
    return node.op != "output" and isinstance(value, (torch.SymInt, int, float))


def producer(node: Node) -> Node:
    """Return the node that computes the value of `node`: for a `getitem`, the call before it."""
    source = node.args[0] if node.target is operator.getitem else node
    assert isinstance(source, Node)
    return source
