"""Convert scaled dot-product attention to two MATRIX_MULTIPLYs around a SOFTMAX.

Scores, masks and the softmax are float32 for every dtype of the operands, as in PyTorch. Rounding a
score of 50 to float16 would change its share of the result by 1.5 %.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.context import Context
from ..conversion.opmath import wide
from ..graph.sizes import is_static
from ..registry import converts
from .matmul import floats_only, multiply
from .reduction import reduce
from .softmax import softmax_layer
from .unary import is_infinity

aten = torch.ops.aten


def _supported(
    query: torch.Tensor,
    key: torch.Tensor,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> str | None:
    if dropout_p != 0:
        return f"dropout_p={dropout_p} is random"
    if scale is None and not is_static(query.shape[-1]):
        return f"the scale depends on the dynamic size {query.shape[-1]}"
    if is_causal and not (is_static(query.shape[-2]) and is_static(key.shape[-2])):
        return f"is_causal with dynamic lengths {query.shape[-2]} and {key.shape[-2]}"
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        return f"enable_gqa shares {key.shape[-3]} key heads among {query.shape[-3]}"
    return None


@converts(
    aten.scaled_dot_product_attention.default,
    check=(floats_only, _supported),
    constants=("attn_mask",),
)
def scaled_dot_product_attention(
    ctx: Context,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    is_causal: bool,
    scale: float | None,
) -> Any:
    """scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, ...) -> Tensor"""
    dtype = ctx.output.dtype
    size = ctx.fake("query").shape
    scale = 1 / math.sqrt(int(size[-1])) if scale is None else scale
    query, key = (ctx.cast(x, wide(dtype)) for x in (query, key))
    if scale != 1:
        query = _times(ctx, query, scale)
    scores = multiply(ctx, query, key, transpose_b=True)
    if is_causal:
        lengths = (int(size[-2]), int(ctx.fake("key").shape[-2]))
        attn_mask = torch.ones(lengths, dtype=torch.bool).tril()
    if attn_mask is not None:
        if not isinstance(attn_mask, torch.Tensor):
            attn_mask = ctx.raise_rank(attn_mask, len(scores.shape))
        scores = _masked(ctx, scores, attn_mask)
    shares = ctx.cast(softmax_layer(ctx, scores, -1), dtype)
    result = multiply(ctx, shares, value)
    return result if attn_mask is None else _only_visible(ctx, result, attn_mask)


def _times(ctx: Context, x: Any, factor: float) -> Any:
    x, number = ctx.operands(x, factor, dtype=ctx.dtype(x))
    return ctx.elementwise("PROD", x, number)


def _masked(ctx: Context, scores: Any, mask: Any) -> Any:
    """Replace scores by -inf where a bool mask is False, or add a float mask to them."""
    dtype, rank = ctx.dtype(scores), len(scores.shape)
    if _is_bool(ctx, mask) and not isinstance(mask, torch.Tensor):
        (mask,) = ctx.operands(mask, dtype=torch.bool, rank=rank)
        hidden = ctx.scalar(_lowest(ctx, dtype), dtype, rank)
        return ctx.net.add_select(mask, scores, hidden).get_output(0)
    if isinstance(mask, torch.Tensor):
        mask = _added_form(mask)
    (mask,) = ctx.operands(mask, dtype=dtype, rank=rank)
    return ctx.elementwise("SUM", scores, mask)


def _lowest(ctx: Context, dtype: torch.dtype) -> float:
    """Return a score that a softmax turns into zero beside any other score."""
    return -math.inf if ctx.features.infinite_operands else torch.finfo(dtype).min


def _added_form(mask: torch.Tensor) -> torch.Tensor:
    """Convert a weight mask to the numbers that are added to the scores."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)


def _only_visible(ctx: Context, result: Any, mask: Any) -> Any:
    """Return zero, as torch does, for queries that see no key: their softmax is NaN."""
    dtype, rank = ctx.dtype(result), len(result.shape)
    if isinstance(mask, torch.Tensor):
        if bool((_added_form(mask) > -math.inf).any(-1).all()):
            return result
        mask = _added_form(mask).amax(-1, keepdim=True)
        visible = ctx.operands(mask > -math.inf, dtype=torch.bool, rank=rank)[0]
    else:
        visible = _visible(ctx, mask, rank)
    zero = ctx.scalar(0, dtype, rank)
    return ctx.net.add_select(visible, result, zero).get_output(0)


def _visible(ctx: Context, mask: Any, rank: int) -> Any:
    """Return which queries see a key, as a bool tensor whose last dimension is 1."""
    is_bool = _is_bool(ctx, mask)
    (mask,) = ctx.operands(mask, dtype=torch.int32 if is_bool else ctx.dtype(mask), rank=rank)
    best = reduce(ctx, "MAX", mask, -1, True)
    if is_bool:
        return ctx.cast(best, torch.bool)
    return ctx.unary("NOT", is_infinity(ctx, best, -math.inf))


def _is_bool(ctx: Context, mask: Any) -> bool:
    dtype = mask.dtype if isinstance(mask, torch.Tensor) else ctx.dtype(mask)
    return bool(dtype == torch.bool)
