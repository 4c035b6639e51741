"""Convert activations to one ACTIVATION layer, or to a few where TensorRT lacks the function."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..conversion.checks import first_output_only, is_floating
from ..conversion.context import Context
from ..conversion.opmath import in_float32
from ..registry import converts

aten = torch.ops.aten

_PLAIN: dict[Any, str] = {aten.sigmoid.default: "SIGMOID", aten.tanh.default: "TANH"}
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


@converts(aten.relu.default)
def relu(ctx: Context, x: Any) -> Any:
    """relu(Tensor self) -> Tensor"""
    dtype = ctx.dtype(x)
    if dtype.is_floating_point:
        return ctx.activation("RELU", x)
    return ctx.elementwise("MAX", *ctx.operands(x, 0, dtype=dtype))


@converts(*_PLAIN)
def sigmoid_or_tanh(ctx: Context, x: Any) -> Any:
    """sigmoid(Tensor self) -> Tensor; integers become floats first"""
    return ctx.activation(_PLAIN[ctx.target], ctx.cast(x, ctx.output.dtype))


def _positive_input_scale(input_scale: float) -> str | None:
    return None if input_scale > 0 else f"input_scale={input_scale} is not positive"


@converts(aten.elu.default, check=(is_floating, _positive_input_scale))
def elu(ctx: Context, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    """elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor"""
    if scale == 1 and input_scale == 1:
        return ctx.activation("ELU", x, alpha=float(alpha))
    return _scaled_elu(ctx, x, float(alpha), float(scale), float(input_scale))


def _positive_alpha(alpha: float) -> str | None:
    return None if alpha > 0 else f"alpha={alpha} is not positive"


@converts(aten.celu.default, check=(is_floating, _positive_alpha))
def celu(ctx: Context, x: Any, alpha: float) -> Any:
    """celu(Tensor self, Scalar alpha=1.) -> Tensor"""
    if alpha == 1:
        return ctx.activation("ELU", x, alpha=1.0)
    return _scaled_elu(ctx, x, float(alpha), 1.0, 1.0 / alpha)


@in_float32
def _scaled_elu(ctx: Context, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    # SELU(y) is beta * y, or beta * alpha * (exp(y) - 1) for y <= 0.
    if input_scale != 1:
        x = _times(ctx, x, input_scale)
    return ctx.activation("SELU", x, alpha=alpha * input_scale, beta=scale / input_scale)


@converts(aten.selu.default, check=is_floating)
def selu(ctx: Context, x: Any) -> Any:
    """selu(Tensor self) -> Tensor"""
    return ctx.activation("SELU", x, alpha=_SELU_ALPHA, beta=_SELU_SCALE)


@converts(aten.leaky_relu.default, check=is_floating)
def leaky_relu(ctx: Context, x: Any, negative_slope: float) -> Any:
    """leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor"""
    return ctx.activation("LEAKY_RELU", x, alpha=float(negative_slope))


def _nonzero_beta(beta: float) -> str | None:
    return "beta=0 divides by zero" if beta == 0 else None


@converts(aten.softplus.default, check=(is_floating, _nonzero_beta))
@in_float32
def softplus(ctx: Context, x: Any, beta: float, threshold: float) -> Any:
    """softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor"""
    scaled = x if beta == 1 else _times(ctx, x, beta)
    linear = _compare(ctx, "GREATER", scaled, threshold)
    curve = ctx.activation("SOFTPLUS", x, alpha=1.0 / beta, beta=float(beta))
    return ctx.net.add_select(linear, x, curve).get_output(0)


def _compare(ctx: Context, operation: str, x: Any, value: float) -> Any:
    """Compare in float32, as torch does, because the dtype of `x` may not hold `value`."""
    return ctx.elementwise(operation, *ctx.operands(x, float(value), dtype=torch.float32))


@converts(aten.gelu.default, check=is_floating)
def gelu(ctx: Context, x: Any, approximate: str) -> Any:
    """gelu(Tensor self, *, str approximate='none') -> Tensor"""
    kind = "GELU_TANH" if approximate == "tanh" else "GELU_ERF"
    if ctx.features.member("ActivationType", kind):
        return ctx.activation(kind, x)
    wide = ctx.cast(x, torch.float32)
    inner = _tanh_of_cubic(ctx, wide) if approximate == "tanh" else _erf_of_scaled(ctx, wide)
    half = _times(ctx, wide, 0.5)
    one_more = ctx.elementwise("SUM", *ctx.operands(inner, 1.0, dtype=torch.float32))
    return ctx.cast(ctx.elementwise("PROD", half, one_more), ctx.output.dtype)


def _erf_of_scaled(ctx: Context, x: Any) -> Any:
    return ctx.unary("ERF", _times(ctx, x, math.sqrt(0.5)))


def _tanh_of_cubic(ctx: Context, x: Any) -> Any:
    """Compute tanh(sqrt(2 / pi) * x * (1 + 0.044715 * x * x))."""
    square = _times(ctx, ctx.elementwise("PROD", x, x), 0.044715)
    factor = ctx.elementwise("SUM", *ctx.operands(square, 1.0, dtype=torch.float32))
    cubic = ctx.elementwise("PROD", _times(ctx, x, math.sqrt(2 / math.pi)), factor)
    return ctx.activation("TANH", cubic)


def _times(ctx: Context, x: Any, factor: float) -> Any:
    return ctx.elementwise("PROD", *ctx.operands(x, factor, dtype=ctx.dtype(x)))


@converts(aten.hardsigmoid.default, check=is_floating)
def hardsigmoid(ctx: Context, x: Any) -> Any:
    """hardsigmoid(Tensor self) -> Tensor"""
    return ctx.activation("HARD_SIGMOID", x, alpha=1 / 6, beta=0.5)


@converts(aten.hardswish.default, check=is_floating)
@in_float32
def hardswish(ctx: Context, x: Any) -> Any:
    """hardswish(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", x, hardsigmoid(ctx, x))


@converts(aten.silu.default, check=is_floating)
@in_float32
def silu(ctx: Context, x: Any) -> Any:
    """silu(Tensor self) -> Tensor"""
    return ctx.elementwise("PROD", x, ctx.activation("SIGMOID", x))


@converts(aten.mish.default, check=is_floating)
@in_float32
def mish(ctx: Context, x: Any) -> Any:
    """mish(Tensor self) -> Tensor"""
    curve = ctx.activation("SOFTPLUS", x, alpha=1.0, beta=1.0)
    return ctx.elementwise("PROD", x, ctx.activation("TANH", curve))


@converts(aten.log_sigmoid.default, check=is_floating)
@in_float32
def log_sigmoid(ctx: Context, x: Any) -> Any:
    """log_sigmoid(Tensor self) -> Tensor"""
    return _log_sigmoid(ctx, x)


@converts(aten.log_sigmoid_forward.default, check=(is_floating, first_output_only))
@in_float32
def log_sigmoid_forward(ctx: Context, x: Any) -> tuple[Any, None]:
    """log_sigmoid_forward(Tensor self) -> (Tensor output, Tensor buffer)"""
    return _log_sigmoid(ctx, x), None


def _log_sigmoid(ctx: Context, x: Any) -> Any:
    """Compute min(x, 0) - softplus(-|x|), which neither overflows nor cancels."""
    below = ctx.elementwise("MIN", *ctx.operands(x, 0.0, dtype=ctx.dtype(x)))
    distance = ctx.unary("NEG", ctx.unary("ABS", x))
    return ctx.elementwise("SUB", below, ctx.activation("SOFTPLUS", distance, alpha=1.0, beta=1.0))


@converts(aten.threshold.default, check=is_floating)
def threshold(ctx: Context, x: Any, threshold: float, value: float) -> Any:
    """threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor"""
    # NOT GREATER would need one layer less, but it replaces NaN, which torch keeps.
    key = ctx.cast(x, torch.float32)
    less, equal = (_compare(ctx, operation, key, threshold) for operation in ("LESS", "EQUAL"))
    replaced = ctx.elementwise("OR", less, equal)
    new, old = ctx.operands(float(value), x, dtype=ctx.dtype(x))
    return ctx.net.add_select(replaced, new, old).get_output(0)


@converts(aten.prelu.default, check=is_floating, constants=("weight",))
def prelu(ctx: Context, x: Any, weight: Any) -> Any:
    """prelu(Tensor self, Tensor weight) -> Tensor"""
    rank = len(x.shape)
    channels = [int(size) for size in ctx.fake("weight").shape] or [1]
    sizes = [1, *channels, *[1] * (rank - 2)] if rank > 1 else channels[:rank]
    known = isinstance(weight, torch.Tensor)
    slope = weight.reshape(sizes) if known else ctx.reshape(weight, sizes)
    return _parametric_relu(ctx, x, slope)


@converts(aten._prelu_kernel.default, check=is_floating)
def prelu_kernel(ctx: Context, x: Any, weight: Any) -> Any:
    """_prelu_kernel(Tensor self, Tensor weight) -> Tensor"""
    return _parametric_relu(ctx, x, weight)


def _parametric_relu(ctx: Context, x: Any, slope: Any) -> Any:
    operands = ctx.operands(x, slope, dtype=ctx.output.dtype)
    return ctx.net.add_parametric_relu(*operands).get_output(0)


@converts(aten.glu.default, check=is_floating)
@in_float32
def glu(ctx: Context, x: Any, dim: int) -> Any:
    """glu(Tensor self, int dim=-1) -> Tensor"""
    sizes = list(ctx.output.shape)
    start = [0] * len(sizes)
    value = ctx.slice(x, start, sizes)
    start[dim] = sizes[dim]
    return ctx.elementwise("PROD", value, ctx.activation("SIGMOID", ctx.slice(x, start, sizes)))
