"""Convert statistics of several reductions: variance, norms and log-sum-exp, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import is_floating
from ..conversion.context import Context
from ..conversion.opmath import wide
from ..registry import converts
from .reduction import reduce

aten = torch.ops.aten

Dims = Sequence[int] | None


def _variance(ctx: Context, x: Any, dim: Dims, correction: Any, keepdim: bool) -> tuple[Any, Any]:
    """Return the variance, and the mean with its dimensions kept, both in the dtype of `x`."""
    fake = ctx.fake("x")
    mean = reduce(ctx, "AVG", x, dim, True)
    deviation = ctx.elementwise("SUB", x, mean)
    squares = ctx.elementwise("PROD", deviation, deviation)
    correction = 1 if correction is None else correction
    if correction == 0:
        return reduce(ctx, "AVG", squares, dim, keepdim), mean
    total = reduce(ctx, "SUM", squares, dim, keepdim)
    sizes = [fake.shape[d] for d in dim] if dim else list(fake.shape)
    return ctx.elementwise("DIV", total, _freedom(ctx, total, sizes, correction)), mean


def _freedom(ctx: Context, total: Any, sizes: list[Any], correction: Any) -> Any:
    """Return max(0, count - correction) at the rank of `total`."""
    count: int | torch.SymInt = math.prod(sizes)
    dtype, rank = ctx.dtype(total), len(total.shape)
    if isinstance(count, int):
        return ctx.scalar(max(0, count - correction), dtype, rank)
    n, c, zero = ctx.operands(count, correction, 0, dtype=dtype, rank=rank)
    return ctx.elementwise("MAX", ctx.elementwise("SUB", n, c), zero)


def _known_correction(correction: Any) -> str | None:
    return "correction is symbolic" if isinstance(correction, torch.SymInt) else None


@converts(aten.var.correction, aten.std.correction, check=_known_correction)
def var_or_std(ctx: Context, x: Any, dim: Dims, correction: Any, keepdim: bool) -> Any:
    """var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None,
    bool keepdim=False) -> Tensor"""
    dtype = ctx.output.dtype
    result, _ = _variance(ctx, ctx.cast(x, wide(dtype)), dim, correction, keepdim)
    if ctx.target is aten.std.correction:
        result = ctx.unary("SQRT", result)
    return ctx.cast(result, dtype)


@converts(aten.var_mean.correction, check=_known_correction)
def var_mean(ctx: Context, x: Any, dim: Dims, correction: Any, keepdim: bool) -> tuple[Any, Any]:
    """var_mean(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False)"""
    dtype = ctx.output[0].dtype
    x = ctx.cast(x, wide(dtype))
    variance, mean = _variance(ctx, x, dim, correction, keepdim)
    if not keepdim:
        mean = reduce(ctx, "AVG", x, dim)
    return ctx.cast(variance, dtype), ctx.cast(mean, dtype)


@converts(aten.logsumexp.default, check=is_floating)
def logsumexp(ctx: Context, x: Any, dim: Sequence[int], keepdim: bool) -> Any:
    """logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor"""
    dtype = ctx.output.dtype
    x = ctx.cast(x, wide(dtype))
    shift = _finite(ctx, reduce(ctx, "MAX", x, dim, True))
    total = reduce(ctx, "SUM", ctx.unary("EXP", ctx.elementwise("SUB", x, shift)), dim, keepdim)
    if not keepdim:
        shift = reduce(ctx, "MAX", shift, dim)
    return ctx.cast(ctx.elementwise("SUM", ctx.unary("LOG", total), shift), dtype)


def _finite(ctx: Context, x: Any) -> Any:
    """Replace infinities by the largest float: inf - inf would be NaN."""
    limit = torch.finfo(ctx.dtype(x)).max
    return ctx.activation("CLIP", x, alpha=-limit, beta=limit)


_NORMS: dict[float, tuple[str, str, str | None]] = {
    2: ("PROD", "SUM", "SQRT"),
    1: ("ABS", "SUM", None),
    math.inf: ("ABS", "MAX", None),
    -math.inf: ("ABS", "MIN", None),
}


def _known_norm(x: torch.Tensor, ord: Any, dtype: torch.dtype | None) -> str | None:
    if ord not in _NORMS:
        return f"ord={ord} is none of 1, 2, inf, -inf"
    if dtype is not None and not x.dtype.is_floating_point:
        return f"the tensor is of {x.dtype}"
    return None


@converts(aten.linalg_vector_norm.default, check=_known_norm)
def linalg_vector_norm(ctx: Context, x: Any, ord: Any, dim: Dims, keepdim: bool) -> Any:
    """linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, ...)"""
    dtype = ctx.output.dtype
    term, total, root = _NORMS[ord]
    x = ctx.cast(x, wide(dtype))
    terms = ctx.elementwise("PROD", x, x) if term == "PROD" else ctx.unary(term, x)
    result = reduce(ctx, total, terms, dim, keepdim)
    return ctx.cast(ctx.unary(root, result) if root else result, dtype)
