"""Hold the checks that families of converters share; each returns a reason to decline, or None."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch.fx import Node

from ..engines.features import Features
from ..graph.sizes import is_unbacked
from ..registry import arguments_of

__all__ = [
    "dense",
    "dtype_of_output",
    "first_output_only",
    "has_dimensions",
    "has_layer",
    "is_floating",
    "one_floating_type",
    "reads_output",
    "sizes_known",
]


def is_floating(node: Node) -> str | None:
    """Decline a call whose first argument is a tensor of integers or bools."""
    first, *_ = arguments_of(node).values()
    dtype: torch.dtype = first.meta["val"].dtype
    return None if dtype.is_floating_point else f"{dtype} is not a floating-point type"


def one_floating_type(**tensors: torch.Tensor) -> str | None:
    """Decline tensors, passed by argument name, unless all have the same floating-point dtype."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) == 1 and all(dtype.is_floating_point for dtype in dtypes):
        return None
    found = ", ".join(f"{name} is {tensor.dtype}" for name, tensor in tensors.items())
    return f"{found}: one floating-point type is needed"


def has_dimensions(x: torch.Tensor) -> str | None:
    """Decline a tensor of no dimensions."""
    return "the tensor is 0-d" if x.dim() == 0 else None


def sizes_known(node: Node) -> str | None:
    """Decline a call to which a size is passed that depends on data."""
    for name, argument in arguments_of(node).items():
        value = torch.fx.node.map_arg(argument, lambda source: source.meta["val"])
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(number, torch.SymInt) and is_unbacked(number) for number in numbers):
            return f"{name}={value} depends on data"
    return None


def dense(layout: torch.layout | None = None, pin_memory: bool | None = None) -> str | None:
    """Decline a result that is sparse, or lies in pinned memory."""
    if layout not in (None, torch.strided):
        return f"layout={layout} is not dense"
    return "pin_memory=True is memory of the host" if pin_memory else None


def dtype_of_output(node: Node, dtype: torch.dtype | None = None) -> str | None:
    """Accept any `dtype`: the converter reads it off the output."""
    assert dtype in (None, node.meta["val"].dtype)
    return None


def has_layer(method: str) -> Callable[[Features], str | None]:
    """Make a check that declines where networks lack `method`, such as "add_grid_sample"."""

    def check(features: Features) -> str | None:
        if features.has(method):
            return None
        return f"{features.version} has no {method.removeprefix('add_').upper()} layer"

    return check


def first_output_only(node: Node) -> str | None:
    """Decline a call whose second output, or a later one, is read."""
    for user in node.users:
        if user.target is not operator.getitem:
            return f"{user.name} takes all outputs at once"
        if user.args[1] != 0:
            return f"output {user.args[1]} is used"
    return None


def reads_output(node: Node, number: int) -> bool:
    """Return whether output `number` of a node with several outputs is read."""
    return any(user.target is not operator.getitem or user.args[1] == number for user in node.users)
