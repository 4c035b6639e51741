"""Convert softmax to one SOFTMAX, and log_softmax to layers that take no logarithm of zero.

Both compute float16 and bfloat16 in float32, because TensorRT does not document in which dtype a
SOFTMAX of these accumulates.
"""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.checks import dtype_of_output, has_dimensions
from ..conversion.context import Context
from ..conversion.opmath import wide
from ..registry import converts
from .reduction import reduce

__all__ = ["softmax_layer"]

aten = torch.ops.aten


def _float_of_output(node: torch.fx.Node, half_to_float: bool = False) -> str | None:
    """Accept any `half_to_float`: the converter reads the dtype off the output."""
    assert not half_to_float or node.meta["val"].dtype == torch.float32
    return None


_CHECKS = (has_dimensions, dtype_of_output, _float_of_output)


def softmax_layer(ctx: Context, x: Any, dim: int) -> Any:
    """Add a SOFTMAX over `dim`. A vector becomes a row, because the layer needs two dimensions."""
    if len(x.shape) == 1:
        row = softmax_layer(ctx, ctx.reshape(x, (1, *x.shape)), 1)
        return ctx.reshape(row, tuple(x.shape))
    layer = ctx.net.add_softmax(x)
    layer.axes = 1 << dim % len(x.shape)
    return layer.get_output(0)


@converts(aten.softmax.int, aten._softmax.default, check=_CHECKS)
def softmax(ctx: Context, x: Any, dim: int) -> Any:
    """softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor

    _softmax(Tensor self, int dim, bool half_to_float) -> Tensor
    """
    dtype = ctx.output.dtype
    return ctx.cast(softmax_layer(ctx, ctx.cast(x, wide(dtype)), dim), dtype)


@converts(aten.log_softmax.int, aten._log_softmax.default, check=_CHECKS)
def log_softmax(ctx: Context, x: Any, dim: int) -> Any:
    """log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor

    _log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor
    """
    x = ctx.cast(x, wide(ctx.output.dtype))
    shifted = ctx.elementwise("SUB", x, reduce(ctx, "MAX", x, dim, True))
    total = reduce(ctx, "SUM", ctx.unary("EXP", shifted), dim, True)
    result = ctx.elementwise("SUB", shifted, ctx.unary("LOG", total))
    return ctx.cast(result, ctx.output.dtype)
