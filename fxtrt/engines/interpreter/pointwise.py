"""Execute layers that work element by element, such as ACTIVATION, ELEMENTWISE and CAST."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import EngineError
from .layers import (
    Compute,
    Layer,
    layer,
)

_ACTIVATIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "RELU": lambda x, a, b: torch.relu(x),
    "SIGMOID": lambda x, a, b: torch.sigmoid(x),
    "TANH": lambda x, a, b: torch.tanh(x),
    "LEAKY_RELU": lambda x, a, b: torch.where(x >= 0, x, a * x),
    "ELU": lambda x, a, b: torch.where(x >= 0, x, a * torch.expm1(x)),
    "SELU": lambda x, a, b: b * torch.where(x > 0, x, a * torch.expm1(x)),
    "SOFTSIGN": lambda x, a, b: x / (1 + x.abs()),
    "SOFTPLUS": lambda x, a, b: a * torch.logaddexp(b * x, torch.zeros_like(x)),
    "CLIP": lambda x, a, b: x.clamp(max=b).clamp(min=a),
    "HARD_SIGMOID": lambda x, a, b: torch.clamp(a * x + b, 0, 1),
    "SCALED_TANH": lambda x, a, b: a * torch.tanh(b * x),
    "THRESHOLDED_RELU": lambda x, a, b: torch.where(x > a, x, 0),
    "GELU_ERF": lambda x, a, b: F.gelu(x),
    "GELU_TANH": lambda x, a, b: F.gelu(x, approximate="tanh"),
}


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _floor_divide(a: Tensor, b: Tensor) -> Tensor:
    # TensorRT computes floor(a / b); torch.floor_divide would also correct the quotient's rounding.
    if a.is_floating_point():
        return torch.floor(a / b)
    return torch.div(a, b, rounding_mode="floor")


_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "SUM": torch.add,
    "PROD": torch.mul,
    "MAX": torch.maximum,
    "MIN": torch.minimum,
    "SUB": torch.sub,
    "DIV": _divide,
    "POW": torch.pow,
    "FLOOR_DIV": _floor_divide,
    "AND": torch.logical_and,
    "OR": torch.logical_or,
    "XOR": torch.logical_xor,
    "EQUAL": torch.eq,
    "GREATER": torch.gt,
    "LESS": torch.lt,
}

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "EXP": torch.exp,
    "LOG": torch.log,
    "SQRT": torch.sqrt,
    "RECIP": torch.reciprocal,
    "ABS": torch.abs,
    "NEG": torch.neg,
    "SIN": torch.sin,
    "COS": torch.cos,
    "TAN": torch.tan,
    "SINH": torch.sinh,
    "COSH": torch.cosh,
    "ASIN": torch.asin,
    "ACOS": torch.acos,
    "ATAN": torch.atan,
    "ASINH": torch.asinh,
    "ACOSH": torch.acosh,
    "ATANH": torch.atanh,
    "CEIL": torch.ceil,
    "FLOOR": torch.floor,
    "ERF": torch.erf,
    "NOT": torch.logical_not,
    "SIGN": torch.sign,
    "ROUND": torch.round,
    "ISINF": torch.isinf,
    "ISNAN": torch.isnan,
}


@layer("ACTIVATION", "IActivationLayer")
def activation(layer: Layer) -> Compute:
    function = _ACTIVATIONS[layer.raw.type.name]
    alpha, beta = layer.raw.alpha, layer.raw.beta
    return lambda x: function(x, alpha, beta).to(x.dtype)


@layer("ELEMENTWISE", "IElementWiseLayer")
def elementwise(layer: Layer) -> Compute:
    return _BINARY[layer.raw.op.name]


@layer("UNARY", "IUnaryLayer")
def unary(layer: Layer) -> Compute:
    return _UNARY[layer.raw.op.name]


@layer("SELECT", "ISelectLayer")
def select(layer: Layer) -> Compute:
    return torch.where


@layer("PARAMETRIC_RELU", "IParametricReLULayer")
def parametric_relu(layer: Layer) -> Compute:
    return lambda x, slope: torch.where(x < 0, x * slope, x)


@layer("IDENTITY", "IIdentityLayer")
def identity(layer: Layer) -> Compute:
    dtype = layer.output_dtype()
    return lambda x: x.to(dtype)


@layer("CAST", "ICastLayer")
def cast(layer: Layer) -> Compute:
    dtype = layer.network.features.to_torch(layer.raw.to_type)
    return lambda x: x.to(dtype)


@layer("CONSTANT", "IConstantLayer")
def constant(layer: Layer) -> Compute:
    layer.bind_weights(0, layer.raw.weights, tuple(layer.raw.shape))
    return lambda value: value


@layer("SCALE", "IScaleLayer")
def scale(layer: Layer) -> Compute:
    raw = layer.raw
    axis, rank = raw.channel_axis, layer.rank()
    shape: tuple[int, ...] = (1,) * rank
    if raw.mode.name == "CHANNEL":
        shape = tuple(-1 if i == axis else 1 for i in range(rank))
    elif raw.mode.name == "ELEMENTWISE":
        shape = (1, *raw.get_input(0).shape[1:])
    for slot, weights in enumerate((raw.scale, raw.shift, raw.power), start=1):
        layer.bind_weights(slot, weights, shape)

    def compute(
        x: Tensor,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        power: Tensor | None = None,
    ) -> Tensor:
        x = x if scale is None else x * scale
        x = x if shift is None else x + shift
        return x if power is None else x**power

    return compute


@layer("ASSERTION", "IAssertionLayer")
def assertion(layer: Layer) -> Compute:
    message = f"layer {layer.name!r} (ASSERTION): {layer.raw.message}"

    def compute(condition: Tensor) -> tuple[Tensor, ...]:
        if not bool(condition.all()):
            raise EngineError(message)
        return ()

    return compute
