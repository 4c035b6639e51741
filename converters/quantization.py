"""Convert quantizers to QUANTIZE and DEQUANTIZE layers: symmetric int8, per tensor or per channel.

Weights too are a float constant, a QUANTIZE and a DEQUANTIZE: TensorRT 8.6, 10, 11 and RTX all take
that form, and fold it to int8 weights. Only strongly typed networks take an int8 constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..conversion.context import Context
from ..engines.features import Features
from ..graph.fake_quantize import PER_CHANNEL, PER_TENSOR
from ..graph.int8_limits import constant_scale, int8_range, modelopt_limits, symmetric
from ..graph.sizes import is_static
from ..registry import converts

# Importing this module defines the operators of `quantized_decomposed`.
import torch.ao.quantization.fx._decomposed  # isort: skip

__all__: list[str] = []

decomposed = torch.ops.quantized_decomposed

_NO_DIMENSIONS = "TensorRT quantizes no tensor without dimensions"


def _range_of_int8(node: Node, quant_min: int, quant_max: int) -> str | None:
    return int8_range(node)


def _any_range(quant_min: int, quant_max: int) -> str | None:
    """Take any range: only a quantize clamps to it."""
    return None


def _constant_scale(node: Node, scale: Any) -> str | None:
    return constant_scale(node)


def _constants(node: Node, zero_point: Any, scale: Any) -> str | None:
    return constant_scale(node) or symmetric(node)


def _constants_per_channel(node: Node, zero_points: Any, scales: Any) -> str | None:
    return constant_scale(node) or symmetric(node)


def _known_channels(node: Node, axis: int) -> str | None:
    size = node.all_input_nodes[0].meta["val"].shape[axis]
    return None if is_static(size) else f"the number of channels {size} is dynamic"


def _float_input(x: torch.Tensor) -> str | None:
    floats = (torch.float32, torch.float16, torch.bfloat16)
    if x.dim() == 0:
        return _NO_DIMENSIONS
    return None if x.dtype in floats else f"TensorRT quantizes no {x.dtype}"


def _float_to_quantize(input: torch.Tensor) -> str | None:
    return _float_input(input)


def _int8_only(dtype: torch.dtype) -> str | None:
    """Decline all types but int8; float8 is refused by the name that it has."""
    if dtype == torch.int8:
        return None
    return f"{dtype} is not int8, the only type that all versions of TensorRT quantize to"


def _strongly_typed(features: Features) -> str | None:
    """Decline half of a pair in 8.6, which has no int8 tensors between layers on their own."""
    if not features.weakly_typed:
        return None
    return f"{features.version} takes a quantize only together with its dequantize"


def _float_result(input: torch.Tensor, out_dtype: torch.dtype | None) -> str | None:
    if input.dim() == 0:
        return _NO_DIMENSIONS
    if input.dtype != torch.int8:
        return f"{input.dtype} is not int8, the only type that all versions dequantize"
    allowed = (None, torch.float32, torch.float16, torch.bfloat16)
    return None if out_dtype in allowed else f"TensorRT does not dequantize to {out_dtype}"


@converts(PER_TENSOR, check=(_float_input, _constant_scale), computes=False)
def fake_quantize(ctx: Context, x: Any, scale: float) -> Any:
    """fake_quantize(Tensor x, float scale) -> Tensor"""
    return round_trip(ctx, x, torch.tensor(float(scale)), None)


@converts(
    PER_CHANNEL,
    check=(_float_input, _constant_scale, _known_channels),
    constants=("scale",),
    computes=False,
)
def fake_quantize_channels(ctx: Context, x: Any, scale: Any, axis: int) -> Any:
    """fake_quantize_channels(Tensor x, Tensor scale, int axis) -> Tensor"""
    return round_trip(ctx, x, scale, axis % len(x.shape))


@converts(
    decomposed.quantize_per_tensor.default,
    decomposed.quantize_per_tensor.tensor,
    check=(_float_to_quantize, _constants, _range_of_int8, _int8_only, _strongly_typed),
    constants=("scale", "zero_point"),
    computes=False,
    dtypes=(torch.int8,),
)
def quantize(ctx: Context, input: Any, scale: Any) -> Any:
    """quantize_per_tensor(Tensor input, float scale, int zero_point, ...) -> Tensor"""
    scale = torch.as_tensor(scale, dtype=torch.float32).reshape(())
    return _quantize(ctx, *_in_type_of_scale(ctx, input, scale), None)


@converts(
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    check=(_float_result, _constants, _any_range, _int8_only, _strongly_typed),
    constants=("scale", "zero_point"),
    computes=False,
    dtypes=(torch.int8,),
)
def dequantize(ctx: Context, input: Any, scale: Any) -> Any:
    """dequantize_per_tensor(Tensor input, float scale, int zero_point, ..., *, ScalarType?
    out_dtype=None) -> Tensor"""
    scale = torch.as_tensor(scale, dtype=torch.float32).reshape(())
    return _dequantized(ctx, input, scale, None)


@converts(
    decomposed.quantize_per_channel.default,
    check=(
        _float_to_quantize,
        _constants_per_channel,
        _known_channels,
        _range_of_int8,
        _int8_only,
        _strongly_typed,
    ),
    constants=("scales", "zero_points"),
    computes=False,
    dtypes=(torch.int8,),
)
def quantize_channels(ctx: Context, input: Any, scales: Any, axis: int) -> Any:
    """quantize_per_channel(Tensor input, Tensor scales, Tensor zero_points, int axis, ...) ->
    Tensor"""
    x, scale = _in_type_of_scale(ctx, input, scales.float())
    return _quantize(ctx, x, scale, axis % len(input.shape))


@converts(
    decomposed.dequantize_per_channel.default,
    check=(
        _float_result,
        _constants_per_channel,
        _known_channels,
        _any_range,
        _int8_only,
        _strongly_typed,
    ),
    constants=("scales", "zero_points"),
    computes=False,
    dtypes=(torch.int8,),
)
def dequantize_channels(ctx: Context, input: Any, scales: Any, axis: int) -> Any:
    """dequantize_per_channel(Tensor input, Tensor scales, Tensor? zero_points, int axis, ..., *,
    ScalarType? out_dtype=None) -> Tensor"""
    return _dequantized(ctx, input, scales.float(), axis % len(input.shape))


def _of_modelopt(
    node: Node, amax: Any, num_bits: int, exponent_bits: int, unsigned: bool, narrow_range: bool
) -> str | None:
    return modelopt_limits(node)


@converts(
    "tensorrt::quantize_op",
    check=(_float_to_quantize, _of_modelopt),
    constants=("amax",),
    computes=False,
    package="modelopt",
)
def modelopt_quantize(ctx: Context, input: Any, amax: torch.Tensor) -> Any:
    """quantize_op(Tensor input, Tensor amax, int num_bits, int exponent_bits, bool unsigned, bool
    narrow_range) -> Tensor"""
    rank = len(input.shape)
    shape = (1,) * (rank - amax.dim()) + tuple(amax.shape)
    axis = next((i for i, size in enumerate(shape) if size > 1), None)
    scale = amax.detach().float().reshape(() if axis is None else (-1,)) / 127
    return round_trip(ctx, input, scale, axis)


def round_trip(ctx: Context, x: Any, scale: torch.Tensor, axis: int | None) -> Any:
    """Add a QUANTIZE and a DEQUANTIZE, and return what has the type of `x` again."""
    dtype = ctx.dtype(x)
    x, scale = _in_type_of_scale(ctx, x, scale)
    result = _dequantize(ctx, _quantize(ctx, x, scale, axis), scale, axis)
    if ctx.features.weakly_typed:
        # The builder chooses the type, and 8.6 reports float32 for it.
        ctx.network.types[result] = ctx.features.to_trt(dtype)
        return result
    return ctx.cast(result, dtype)


def _in_type_of_scale(ctx: Context, x: Any, scale: torch.Tensor) -> tuple[Any, torch.Tensor]:
    """Return `x` and its scale in one type, as strongly typed networks want, without rounding."""
    scale = scale.detach().cpu().float()
    if ctx.features.weakly_typed:
        return x, scale
    dtype = ctx.dtype(x)
    if dtype == torch.float16 and torch.equal(scale.half().float(), scale):
        return x, scale.half()
    return ctx.cast(x, torch.float32), scale


def _quantize(ctx: Context, x: Any, scale: torch.Tensor, axis: int | None) -> Any:
    layer = ctx.net.add_quantize(x, ctx.tensor(scale), *_type(ctx, torch.int8))
    if axis is not None:
        layer.axis = axis
    return layer.get_output(0)


def _dequantize(ctx: Context, x: Any, scale: torch.Tensor, axis: int | None) -> Any:
    layer = ctx.net.add_dequantize(x, ctx.tensor(scale), *_type(ctx, scale.dtype))
    if axis is not None:
        layer.axis = axis
    return layer.get_output(0)


def _dequantized(ctx: Context, x: Any, scale: torch.Tensor, axis: int | None) -> Any:
    scale = scale.detach().cpu().float()
    return ctx.cast(_dequantize(ctx, x, scale, axis), ctx.output.dtype)


def _type(ctx: Context, dtype: torch.dtype) -> tuple[Any, ...]:
    """Return the type that the layer gives, which 8.6 does not ask for."""
    return () if ctx.features.weakly_typed else (ctx.features.to_trt(dtype),)
