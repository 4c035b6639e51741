"""Rows of converters/quantization.py."""

from __future__ import annotations

from typing import Any

import torch

from fxtrt.graph.fake_quantize import PER_CHANNEL, PER_TENSOR

from .row import OpRow, T, V, W

# Importing this module defines the operators of `quantized_decomposed`.
import torch.ao.quantization.fx._decomposed  # isort: skip

decomposed = torch.ops.quantized_decomposed
QUANTIZE = decomposed.quantize_per_tensor
DEQUANTIZE = decomposed.dequantize_per_tensor
INT8 = (-128, 127, torch.int8)

X = T((2, 3, 5))
STEPS = T((2, 3, 5), torch.int8, low=-128, high=128)
EDGES = V(-100.0, -4.0, -1.0, -0.375, -0.125, 0.0, 0.125, 0.375, 0.99, 3.97, 4.0, 100.0)
"""Ties, and what lies beyond the range of int8 at a scale of 1/32."""


def constant(*values: float, dtype: torch.dtype = torch.float32) -> T:
    """A weight of one dimension."""
    return T((len(values),), dtype, values=values, weight=True)


def number(value: float, dtype: torch.dtype = torch.float32) -> T:
    """A weight without dimensions."""
    return T((), dtype, values=(value,), weight=True)


SCALES = constant(0.03125, 0.015625, 0.0625)
ZEROS = constant(0, 0, 0, dtype=torch.int32)
NARROW = T((3, 4), values=(1.0, -1.0, 0.5, 0.25) * 3, weight=True)
"""A weight that needs no step below -127 at a scale of 1/64."""
SCALE = (0.03125, 0)
SCALE_WEIGHTS = (number(0.03125), number(0, torch.int64))


def channels(axis: int, *range_: Any) -> tuple[Any, ...]:
    return (SCALES, ZEROS, axis, *(range_ or (-128, 127)))


ROWS = [
    OpRow(PER_TENSOR, (X, 0.03125), name="x", dynamic=True),
    OpRow(PER_TENSOR, (EDGES, 0.03125), name="edges"),
    OpRow(PER_TENSOR, (X, 0.0123), name="not_in_float16"),
    OpRow(PER_TENSOR, (X, 2.0**-24), name="least_of_float16"),
    OpRow(PER_TENSOR, (T(()), 0.03), name="0d", rejected="without dimensions"),
    OpRow(PER_TENSOR, (X, 0.0), name="no_scale", rejected="must be finite and above 0"),
    OpRow(PER_CHANNEL, (X, SCALES, 1), name="x", dynamic=True, rejected="is dynamic"),
    OpRow(PER_CHANNEL, (X, SCALES, -2), name="x"),
    OpRow(PER_CHANNEL, (W(3, 4, 2, 2), SCALES, 0), name="weight"),
    OpRow(PER_CHANNEL, (X, V(0.1, 0.2, 0.3), 1), name="computed", rejected="scale is computed"),
    OpRow(
        PER_CHANNEL,
        (X, constant(0.1, 0.0, 0.3), 1),
        name="no_scale",
        rejected="must be finite and above 0",
    ),
    OpRow(QUANTIZE.default, (X, 0.03, 3, *INT8), name="zero", rejected="is not 0: asymmetric"),
    OpRow(
        QUANTIZE.default,
        (X, 0.03, 0, -127, 127, torch.int8),
        name="narrow",
        rejected="TensorRT clamps to -128",
    ),
    OpRow(QUANTIZE.default, (NARROW, 0.015625, 0, -127, 127, torch.int8), name="narrow_weight"),
    OpRow(
        decomposed.quantize_per_channel.default,
        (NARROW, constant(0.015625, 0.015625, 0.015625), ZEROS, 0, -127, 127, torch.int8),
        name="narrow_weight",
    ),
    OpRow(
        decomposed.quantize_per_channel.default,
        (X, SCALES, constant(0, 1, 0, dtype=torch.int32), 1, *INT8),
        name="zeros",
        rejected="is not 0: asymmetric",
    ),
    OpRow(QUANTIZE.default, (X, *SCALE, *INT8), name="x", dynamic=True, float16=False),
    OpRow(QUANTIZE.default, (EDGES, *SCALE, *INT8), name="edges"),
    OpRow(QUANTIZE.default, (X, *SCALE, 0, 255, torch.uint8), name="u8", rejected="has no"),
    OpRow(
        QUANTIZE.default,
        (X, *SCALE, -128, 127, torch.float8_e4m3fn),
        name="float8",
        rejected="has no",
    ),
    OpRow(QUANTIZE.tensor, (X, *SCALE_WEIGHTS, *INT8), name="x", dynamic=True),
    OpRow(DEQUANTIZE.default, (STEPS, *SCALE, *INT8), name="x", dynamic=True),
    OpRow(DEQUANTIZE.default, (STEPS, *SCALE, *INT8), {"out_dtype": torch.float16}, name="float16"),
    OpRow(DEQUANTIZE.default, (STEPS, 0.1, 2, *INT8), name="zero", rejected="asymmetric"),
    OpRow(DEQUANTIZE.tensor, (STEPS, *SCALE_WEIGHTS, *INT8), name="x"),
    OpRow(decomposed.quantize_per_channel.default, (X, *channels(1, *INT8)), name="x"),
    OpRow(decomposed.dequantize_per_channel.default, (STEPS, *channels(1, *INT8)), name="x"),
    OpRow(
        decomposed.dequantize_per_channel.default,
        (STEPS, SCALES, None, 1, *INT8),
        name="no_zeros",
    ),
]
