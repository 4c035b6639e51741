"""Convert copies and changes of dtype to CAST, or to nothing where an engine needs no copy."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.checks import dense
from ..conversion.context import Context
from ..registry import converts
from .shape import expand_to

__all__ = ["convert_dtype"]

aten = torch.ops.aten


def _same_device(x: torch.Tensor, device: torch.device | None) -> str | None:
    target = None if device is None else torch.device(device)
    if target is None or (target.type == x.device.type and target.index in (None, x.device.index)):
        return None
    return f"device={target} is not {x.device}, where the tensor lies"


def convert_dtype(ctx: Context, x: Any, dtype: torch.dtype) -> Any:
    """Convert `x` to `dtype`: integers lose the fraction, and all but zero becomes True."""
    if dtype != torch.bool or ctx.dtype(x) == torch.bool:
        return ctx.cast(x, dtype)
    # TensorRT does not define what CAST to bool makes of 0.5 or of NaN.
    zero = ctx.elementwise("EQUAL", *ctx.operands(x, 0, dtype=ctx.dtype(x)))
    return ctx.unary("NOT", zero)


@converts(aten._to_copy.default, check=(dense, _same_device))
def to_copy(
    ctx: Context,
    x: Any,
    dtype: torch.dtype | None,
    non_blocking: bool,
    memory_format: torch.memory_format | None,
) -> Any:
    """_to_copy(Tensor self, *, ScalarType? dtype=None, ...) -> Tensor"""
    # An engine's tensors are always contiguous, and its copies always run in order.
    return x if dtype is None else convert_dtype(ctx, x, dtype)


@converts(aten.clone.default)
def clone(ctx: Context, x: Any, memory_format: torch.memory_format | None) -> Any:
    """clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor"""
    return x


@converts(aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)
def alias(ctx: Context, x: Any) -> Any:
    """alias(Tensor(a) self) -> Tensor(a)"""
    return x


@converts(aten.copy.default)
def copy(ctx: Context, x: Any, src: Any, non_blocking: bool) -> Any:
    """copy(Tensor self, Tensor src, bool non_blocking=False) -> Tensor"""
    src = convert_dtype(ctx, src, ctx.output.dtype)
    return expand_to(ctx, src, ctx.fake("src").shape, ctx.output.shape)
