"""Finds weights and scalars of a call that a narrower float type cannot hold."""

from __future__ import annotations

import math

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.fake_quantize import is_quantizer
from ..graph.weights import weight
from ..registry import arguments_of

__all__ = ["out_of_range"]

_MOST_SUBNORMAL = 0.5
"""The share of a weight's nonzero numbers that may lose their accuracy or become zero."""


def out_of_range(gm: GraphModule, node: Node, dtype: torch.dtype) -> str | None:
    """Return why the weights and scalars of a call cannot be `dtype`, or None.

    Numbers beyond its range would become infinite. Numbers below its smallest normal number lose
    digits, which is harmless for a few of many, but not for a scalar or for most of a weight.
    """
    if not isinstance(node.target, OpOverload):
        return None
    types = {argument.name: str(argument.type) for argument in node.target._schema.arguments}
    for name, value in arguments_of(node).items():
        if is_quantizer(node) and name != "x":
            continue  # The converter keeps scales as they are.
        reason = None
        if isinstance(value, Node):
            tensor = weight(gm, value)
            if tensor is not None and tensor.is_floating_point():
                reason = _of_weight(tensor.detach(), dtype)
        elif isinstance(value, (int, float)) and "int" not in types[name]:
            reason = _of_scalar(float(value), dtype)
        if reason:
            return f"{name} {reason}"
    return None


def _of_weight(tensor: torch.Tensor, dtype: torch.dtype) -> str | None:
    limits = torch.finfo(dtype)
    sizes = tensor[tensor.isfinite() & (tensor != 0)].abs()
    if sizes.numel() == 0:
        return None
    largest = float(sizes.max())
    if largest > limits.max:
        return f"has {largest:g}, and {limits.max:g} is the largest {_name(dtype)}"
    share = float((sizes < limits.smallest_normal).float().mean())
    if share > _MOST_SUBNORMAL:
        return f"is to {share:.0%} below {limits.smallest_normal:.1e}, too small for {_name(dtype)}"
    return None


def _of_scalar(value: float, dtype: torch.dtype) -> str | None:
    limits = torch.finfo(dtype)
    if value == 0 or not math.isfinite(value):
        return None
    if limits.smallest_normal <= abs(value) <= limits.max:
        return None
    return f"is {value:g}, outside of {_name(dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
