"""Defines the rows of the operator table: a call of an operator, with random inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule

from ...capture.export import trace

__all__ = ["OpRow", "T", "TracedRow", "V", "W", "in_float16", "trace_row"]


@dataclass(frozen=True)
class T:
    """A random tensor: normal floats, small ints, or bools; `low` and `high` make it uniform."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    low: float | None = None
    high: float | None = None
    weight: bool = False
    """True for a weight of the model (get_attr), False for an input."""
    values: tuple[Any, ...] | None = None
    """These values, and no random ones."""

    def make(self, generator: torch.Generator) -> torch.Tensor:
        if self.values is not None:
            return torch.tensor(self.values, dtype=self.dtype).reshape(self.shape)
        if self.dtype == torch.bool:
            return torch.rand(self.shape, generator=generator) > 0.5
        if not self.dtype.is_floating_point:
            low = -5 if self.low is None else int(self.low)
            high = 6 if self.high is None else int(self.high)
            return torch.randint(low, high, self.shape, generator=generator, dtype=self.dtype)
        if self.low is None:
            return torch.randn(self.shape, generator=generator).to(self.dtype)
        value = torch.rand(self.shape, generator=generator)
        return (value * ((self.high or 1.0) - self.low) + self.low).to(self.dtype)


def V(*values: Any, dtype: torch.dtype = torch.float32) -> T:
    """A one-dimensional input of these values: NaN, infinities, ties."""
    return T((len(values),), dtype, values=values)


def W(*shape: int, low: float | None = None, high: float | None = None) -> T:
    """A float32 weight."""
    return T(shape, low=low, high=high, weight=True)


@dataclass(frozen=True, eq=False)
class OpRow:
    """A call of `target` that must convert and equal eager, or be declined with `rejected`.

    args, kwargs: the call; each `T` becomes a tensor.
    dynamic:      also run with every dimension larger than 1 of every input symbolic
                  (a row that is declined: only so).
    call:         how to call, where sizes must follow the inputs:
                  `lambda x: x.view(x.shape[0], -1)` (it must lead to `target` alone).
    rejected:     a part of the reason that `check` must give.
    float16:      whether its float32 tensors may be float16 as well: rounding makes ties, and ties
                  have no order.
    """

    target: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    dynamic: bool = False
    call: Callable[..., Any] | None = None
    rejected: str | None = None
    tolerance: float = 1e-5
    float16: bool = True
    name: str = ""

    @property
    def id(self) -> str:
        return f"{str(self.target).removeprefix('aten.')}{'-' + self.name if self.name else ''}"


def in_float16(row: OpRow) -> OpRow | None:
    """The row with its float32 tensors in float16; None where that is not the same test."""
    leaves, spec = torch.utils._pytree.tree_flatten((row.args, row.kwargs), is_leaf=_is_tensor)
    floats = {leaf.dtype for leaf in leaves if isinstance(leaf, T) and leaf.dtype.is_floating_point}
    fixed = any(isinstance(leaf, (torch.dtype, torch.Tensor)) for leaf in leaves)
    if floats != {torch.float32} or fixed or not row.float16:
        return None
    narrow = [
        replace(leaf, dtype=torch.float16)
        if isinstance(leaf, T) and leaf.dtype == torch.float32
        else leaf
        for leaf in leaves
    ]
    args, kwargs = torch.utils._pytree.tree_unflatten(narrow, spec)
    return replace(row, args=args, kwargs=kwargs, tolerance=max(row.tolerance, 1e-2))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, T)


@dataclass(frozen=True)
class TracedRow:
    """A row as a graph: `gm(*inputs)` is the call."""

    gm: GraphModule
    inputs: tuple[torch.Tensor, ...]

    @cached_property
    def expected(self) -> tuple[torch.Tensor, ...]:
        """Return what torch gives."""
        return tuple(self.gm(*self.inputs))


def trace_row(row: OpRow, *, dynamic: bool = False, device: str = "cpu") -> TracedRow:
    """The graph of the row's call, with its random inputs (the same ones every time)."""
    generator = torch.Generator().manual_seed(0)
    leaves, spec = torch.utils._pytree.tree_flatten((row.args, row.kwargs), is_leaf=_is_tensor)
    made = [leaf.make(generator) if isinstance(leaf, T) else leaf for leaf in leaves]
    made = [leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf for leaf in made]
    slots = [i for i, leaf in enumerate(leaves) if isinstance(leaf, T) and not leaf.weight]

    def function(*tensors: torch.Tensor) -> Any:
        values = list(made)
        for slot, tensor in zip(slots, tensors, strict=True):
            values[slot] = tensor
        args, kwargs = torch.utils._pytree.tree_unflatten(values, spec)
        if row.call is None and any(a.name == "device" for a in row.target._schema.arguments):
            kwargs = {"device": torch.device(device)} | kwargs
        return (row.call or row.target)(*args, **kwargs)

    inputs = tuple(made[slot] for slot in slots)
    return TracedRow(trace(function, inputs, dynamic=dynamic), inputs)
