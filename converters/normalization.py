"""Convert normalisations: SCALE takes known statistics, NORMALIZATION computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from ..conversion.checks import first_output_only, is_floating
from ..conversion.context import Context
from ..graph.metadata import known_equal
from ..graph.sizes import Size, is_static
from ..registry import arguments_of, converts
from .reduction import axes_mask, reduce

aten = torch.ops.aten

_AFFINE = ("weight", "bias")
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def _has_statistics(node: Node) -> str | None:
    """Decline a call without statistics.

    Weight and bias may be missing, and each of the four may be computed at run time.
    """
    arguments = arguments_of(node)
    missing = [name for name in _STATISTICS[2:] if arguments[name] is None]
    return f"{missing[0]} is None" if missing else None


def _inference(training: bool = False) -> str | None:
    return "training=True computes the statistics of the batch" if training else None


def _batch_rank(input: torch.Tensor) -> str | None:
    return None if 2 <= input.dim() <= 5 else f"rank {input.dim()} is not between 2 and 5"


@converts(
    aten._native_batch_norm_legit_no_training.default,
    aten._native_batch_norm_legit.default,
    check=(is_floating, _batch_rank, _has_statistics, first_output_only, _inference),
    constants=_STATISTICS,
)
def native_batch_norm(
    ctx: Context,
    input: Any,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    momentum: float,
    eps: float,
) -> tuple[Any, None, None]:
    """_native_batch_norm_legit(Tensor input, Tensor? weight, Tensor? bias, Tensor(a!) running_mean,
    Tensor(b!) running_var, bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)

    _native_batch_norm_legit_no_training has no `training`.
    """
    del momentum
    return _scale(ctx, input, weight, bias, running_mean, running_var, eps), None, None


def _scale(
    ctx: Context,
    x: Any,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    var: torch.Tensor,
    eps: float,
) -> Any:
    """Add one SCALE layer, in float32 even for float16 and bfloat16, as torch computes it."""
    values = [value for value in (weight, bias, mean, var) if value is not None]
    if not all(isinstance(value, torch.Tensor) for value in values):
        return _scale_at_run_time(ctx, x, weight, bias, mean, var, eps)
    factor = torch.rsqrt(var.detach().cpu().double() + eps)
    if weight is not None:
        factor = factor * weight.detach().cpu().double()
    shift = -mean.detach().cpu().double() * factor
    if bias is not None:
        shift = shift + bias.detach().cpu().double()
    rank = len(x.shape)
    wide = _to_rank_4(ctx, ctx.cast(x, torch.float32))
    channels, none = ctx.trt.ScaleMode.CHANNEL, ctx.trt.Weights()
    arrays = ctx.weights(shift.float()), ctx.weights(factor.float())
    y = ctx.net.add_scale_nd(wide, channels, *arrays, none, 1).get_output(0)
    return ctx.cast(_from_rank_4(ctx, y, rank), ctx.dtype(x))


def _scale_at_run_time(
    ctx: Context, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float
) -> Any:
    """Compute the same in ELEMENTWISE layers, where the model computes statistics or weights."""
    count = len(x.shape)

    def per_channel(value: Any) -> Any:
        (wide,) = ctx.operands(value, dtype=torch.float32)
        return ctx.reshape(wide, (1, -1, *[1] * (count - 2)))

    spread = ctx.elementwise("SUM", per_channel(var), ctx.scalar(eps, torch.float32, count))
    factor = ctx.unary("RECIP", ctx.unary("SQRT", spread))
    if weight is not None:
        factor = ctx.elementwise("PROD", factor, per_channel(weight))
    centred = ctx.elementwise("SUB", ctx.cast(x, torch.float32), per_channel(mean))
    y = ctx.elementwise("PROD", centred, factor)
    if bias is not None:
        y = ctx.elementwise("SUM", y, per_channel(bias))
    return ctx.cast(y, ctx.dtype(x))


def _to_rank_4(ctx: Context, x: Any) -> Any:
    rank = len(x.shape)
    if rank >= 4:
        return x
    layer = ctx.net.add_shuffle(x)
    layer.reshape_dims = (0, 0, -1, 1) if rank == 3 else (0, 0, 1, 1)
    return layer.get_output(0)


def _from_rank_4(ctx: Context, x: Any, rank: int) -> Any:
    if rank >= 4:
        return x
    layer = ctx.net.add_shuffle(x)
    layer.reshape_dims = (0, 0, -1) if rank == 3 else (0, 0)
    return layer.get_output(0)


@converts(aten.layer_norm.default, check=is_floating, constants=_AFFINE)
def layer_norm(
    ctx: Context,
    input: Any,
    normalized_shape: Sequence[Size],
    weight: Any,
    bias: Any,
    eps: float,
    cudnn_enable: bool,
) -> Any:
    """layer_norm(Tensor input, SymInt[] normalized_shape, ..., float eps, bool cudnn_enable)"""
    del cudnn_enable
    return _layer_norm(ctx, input, len(normalized_shape), weight, bias, eps)


@converts(aten.native_layer_norm.default, check=(is_floating, first_output_only), constants=_AFFINE)
def native_layer_norm(
    ctx: Context,
    input: Any,
    normalized_shape: Sequence[Size],
    weight: Any,
    bias: Any,
    eps: float,
) -> tuple[Any, None, None]:
    """native_layer_norm(Tensor input, SymInt[] normalized_shape, ..., float eps)"""
    return _layer_norm(ctx, input, len(normalized_shape), weight, bias, eps), None, None


def _layer_norm(ctx: Context, x: Any, count: int, weight: Any, bias: Any, eps: float) -> Any:
    dtype = _common_dtype(ctx, x, weight, bias)
    rank = len(x.shape)
    wide, scale, shift = ctx.operands(
        x,
        1.0 if weight is None else weight,
        0.0 if bias is None else bias,
        dtype=dtype,
    )
    axes = range(rank - count, rank)
    return ctx.cast(_normalize(ctx, wide, scale, shift, axes, eps), ctx.dtype(x))


def _common_dtype(ctx: Context, x: Any, *affine: Any) -> torch.dtype:
    """Return the dtype that torch computes in: float32 if a weight's dtype differs from `x`'s."""
    dtype = ctx.dtype(x)
    dtypes = (_dtype(ctx, value) for value in affine if value is not None)
    return dtype if all(other == dtype for other in dtypes) else torch.float32


def _dtype(ctx: Context, value: Any) -> torch.dtype:
    return value.dtype if isinstance(value, torch.Tensor) else ctx.dtype(value)


def _normalize(
    ctx: Context, x: Any, scale: Any, shift: Any, axes: Sequence[int], eps: float, groups: int = 1
) -> Any:
    modern = ctx.features.has("add_normalization_v2")
    add = ctx.net.add_normalization_v2 if modern else ctx.net.add_normalization
    layer = add(x, scale, shift, axes_mask(axes, len(x.shape)))
    layer.epsilon = eps
    if groups != 1:
        layer.num_groups = groups
    return layer.get_output(0)


def _known_channels(input: torch.Tensor) -> str | None:
    if input.dim() < 2:
        return f"rank {input.dim()} has no channels"
    channels = input.shape[1]
    return None if is_static(channels) else f"the number of channels, {channels}, is dynamic"


@converts(aten.group_norm.default, check=(is_floating, _known_channels), constants=_AFFINE)
def group_norm(
    ctx: Context,
    input: Any,
    num_groups: int,
    weight: Any,
    bias: Any,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """group_norm(Tensor input, int num_groups, ..., float eps, bool cudnn_enabled)"""
    del cudnn_enabled
    return _group_norm(ctx, input, num_groups, weight, bias, eps)


def _shape_of_input(input: torch.Tensor, N: Size, C: Size, HxW: Size) -> str | None:
    sizes = (input.shape[0], input.shape[1], math.prod(input.shape[2:]))
    if all(known_equal(*pair) for pair in zip((N, C, HxW), sizes, strict=True)):
        return None
    return f"N={N}, C={C}, HxW={HxW} do not describe the input {tuple(input.shape)}"


@converts(
    aten.native_group_norm.default,
    check=(is_floating, _known_channels, _shape_of_input, first_output_only),
    constants=_AFFINE,
)
def native_group_norm(
    ctx: Context, input: Any, weight: Any, bias: Any, group: int, eps: float
) -> tuple[Any, None, None]:
    """native_group_norm(Tensor input, ..., SymInt N, SymInt C, SymInt HxW, int group, float eps)"""
    return _group_norm(ctx, input, group, weight, bias, eps), None, None


def _group_norm(ctx: Context, x: Any, groups: int, weight: Any, bias: Any, eps: float) -> Any:
    """Normalise with statistics over (C / groups, *spatial).

    With one group NORMALIZATION takes `axes` as they are, so these hold the channels. Its first
    version scales groups and not channels, so that the channels need layers of their own.
    """
    per_channel = groups == 1 or ctx.features.has("add_normalization_v2")
    # Separate layers for the channels would round to float16 once more.
    dtype = _common_dtype(ctx, x, weight, bias) if per_channel else torch.float32
    rank = len(x.shape)
    wide = _to_rank_4(ctx, ctx.cast(x, dtype))
    lifted = len(wide.shape)
    channels = int(ctx.fake("input").shape[1])
    width = channels if per_channel else groups
    spatial = (1,) * (lifted - 2)
    scale = _affine(ctx, weight if per_channel else None, 1.0, (1, width, *spatial), dtype)
    shift = _affine(ctx, bias if per_channel else None, 0.0, (1, width, *spatial), dtype)
    axes = range(1 if groups == 1 else 2, lifted)
    y = _normalize(ctx, wide, scale, shift, axes, eps, groups)
    if not per_channel:
        y = _scale_channels(ctx, y, weight, bias, (1, channels, *spatial), dtype)
    return ctx.cast(_from_rank_4(ctx, y, rank), ctx.dtype(x))


def _scale_channels(
    ctx: Context, y: Any, weight: Any, bias: Any, sizes: Sequence[int], dtype: torch.dtype
) -> Any:
    if weight is not None:
        y = ctx.elementwise("PROD", y, _affine(ctx, weight, 1.0, sizes, dtype))
    if bias is not None:
        y = ctx.elementwise("SUM", y, _affine(ctx, bias, 0.0, sizes, dtype))
    return y


def _affine(
    ctx: Context, value: Any, default: float, sizes: Sequence[int], dtype: torch.dtype
) -> Any:
    """Return `value`, one number per channel, in the shape `sizes`; None stands for `default`."""
    if value is None:
        return ctx.tensor(torch.full(tuple(sizes), default, dtype=dtype))
    if isinstance(value, torch.Tensor):
        return ctx.tensor(value.detach().to(dtype).reshape(tuple(sizes)))
    return ctx.cast(ctx.reshape(value, sizes), dtype)


def _own_statistics(node: Node, input: torch.Tensor, use_input_stats: bool) -> str | None:
    if not use_input_stats:
        return _has_statistics(node)
    arguments = arguments_of(node)
    if arguments["running_mean"] is not None:
        return "use_input_stats=True updates running_mean"
    return None if input.dim() > 2 else f"rank {input.dim()} has nothing to average over"


@converts(
    aten.instance_norm.default,
    check=(is_floating, _known_channels, _batch_rank, _own_statistics),
    constants=_STATISTICS,
)
def instance_norm(
    ctx: Context,
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """instance_norm(Tensor input, ..., bool use_input_stats, float momentum, float eps, ...)"""
    del momentum, cudnn_enabled
    if not use_input_stats:
        return _scale(ctx, input, weight, bias, running_mean, running_var, eps)
    rank = len(input.shape)
    dtype = _common_dtype(ctx, input, weight, bias)
    sizes = (1, int(ctx.fake("input").shape[1]), *(1,) * (rank - 2))
    scale = _affine(ctx, weight, 1.0, sizes, dtype)
    shift = _affine(ctx, bias, 0.0, sizes, dtype)
    wide = ctx.cast(input, dtype)
    return ctx.cast(_normalize(ctx, wide, scale, shift, range(2, rank), eps), ctx.dtype(input))


def _same_dtype(input: torch.Tensor, weight: torch.Tensor | None) -> str | None:
    if weight is None or weight.dtype == input.dtype:
        return None
    return f"weight is {weight.dtype}, input {input.dtype}"


def _known_eps(input: torch.Tensor, eps: float | None) -> str | None:
    if eps is not None or input.dtype == torch.float32:
        return None
    return f"eps=None means different numbers for {input.dtype} in different versions of torch"


@converts(
    aten.rms_norm.default, check=(is_floating, _same_dtype, _known_eps), constants=("weight",)
)
def rms_norm(
    ctx: Context, input: Any, normalized_shape: Sequence[Size], weight: Any, eps: float | None
) -> Any:
    """rms_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, float? eps=None)"""
    wide = ctx.cast(input, torch.float32)
    rank = len(input.shape)
    axes = range(rank - len(normalized_shape), rank)
    square = ctx.elementwise("PROD", wide, wide)
    mean = reduce(ctx, "AVG", square, axes, keepdim=True)
    small = torch.finfo(torch.float32).eps if eps is None else eps
    root = ctx.unary(
        "SQRT", ctx.elementwise("SUM", *ctx.operands(mean, small, dtype=torch.float32))
    )
    y = ctx.elementwise("DIV", wide, root)
    if weight is not None:
        y = ctx.elementwise("PROD", *ctx.operands(y, weight, dtype=torch.float32))
    return ctx.cast(y, ctx.dtype(input))
