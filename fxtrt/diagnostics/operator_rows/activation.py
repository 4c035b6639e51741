"""Rows of converters/activation.py."""

from __future__ import annotations

import math
from typing import Any

import torch

from .row import OpRow, T, V, W

aten = torch.ops.aten

X = T((2, 3, 4, 5), low=-4.0, high=4.0)
HALF = T((2, 3, 4), torch.float16, low=-4.0, high=4.0)
BRAIN = T((2, 3, 4), torch.bfloat16, low=-4.0, high=4.0)
INTS = T((3, 4), torch.int32)


SPECIAL = V(math.nan, math.inf, -math.inf, 0.5, -0.5, 0.0, 0.1, 40.0, -40.0, 20.0)


def row(target: Any, *args: Any, **options: Any) -> OpRow:
    return OpRow(target, args, **options)


UNARY = [
    aten.relu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.elu.default,
    aten.selu.default,
    aten.celu.default,
    aten.leaky_relu.default,
    aten.softplus.default,
    aten.gelu.default,
    aten.hardsigmoid.default,
    aten.hardswish.default,
    aten.silu.default,
    aten.mish.default,
    aten.log_sigmoid.default,
]
SELECTED_AT_BORDERS = [
    aten.relu.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.leaky_relu.default,
    aten.softplus.default,
    aten.log_sigmoid.default,
]

ROWS = [
    *(row(target, X, dynamic=True) for target in UNARY),
    *(row(target, HALF, name="fp16", tolerance=5e-3) for target in UNARY),
    *(row(target, BRAIN, name="bf16", tolerance=4e-2) for target in UNARY),
    *(row(target, T(()), name="0d") for target in UNARY),
    *(row(target, SPECIAL, name="special") for target in SELECTED_AT_BORDERS),
    row(aten.relu.default, INTS, name="int32"),
    row(aten.relu.default, T((3, 4), torch.int64), name="int64"),
    row(aten.sigmoid.default, INTS, name="int32"),
    row(aten.sigmoid.default, T((3, 4), torch.bool), name="bool"),
    row(aten.tanh.default, T((3, 4), torch.int64), name="int64"),
    row(
        aten.log_sigmoid_forward.default,
        X,
        call=lambda x: aten.log_sigmoid_forward.default(x)[0],
        dynamic=True,
    ),
    row(aten.log_sigmoid_forward.default, X, name="buffer", rejected="output 1 is used"),
    row(aten.elu.default, X, 0.5, name="alpha"),
    row(aten.elu.default, X, 0.5, 2.0, name="scale"),
    row(aten.elu.default, X, 0.5, 2.0, 3, name="input_scale"),
    row(aten.elu.default, X, 1.0, 1.0, -1.0, name="negative", rejected="input_scale=-1.0"),
    row(aten.celu.default, X, 2.0, name="alpha"),
    row(
        aten.celu.default,
        V(-9.0, -0.1, 1.0, 6e4, dtype=torch.float16),
        0.1,
        name="half",
        tolerance=2e-3,
    ),
    row(aten.celu.default, X, -2.0, name="negative", rejected="alpha=-2.0 is not positive"),
    row(aten.leaky_relu.default, X, -0.3, name="negative_slope"),
    row(aten.softplus.default, X, 2.0, 3.0, name="low_threshold"),
    row(aten.softplus.default, X, 0.5, 1, name="beta_below_1"),
    row(aten.softplus.default, SPECIAL, 1, 0.1, name="threshold_at_value"),
    row(aten.gelu.default, X, kwargs={"approximate": "tanh"}, name="tanh"),
    row(aten.threshold.default, X, 0.5, 7.0, dynamic=True),
    row(aten.threshold.default, SPECIAL, 0.5, -1, name="special"),
    row(aten.threshold.default, HALF, 0.1, 0.3, name="fp16"),
    row(aten.threshold.default, INTS, 0, 1, name="int32", rejected="torch.int32"),
    row(aten.prelu.default, X, W(3), dynamic=True),
    row(aten.prelu.default, X, W(1), name="one_slope"),
    row(aten.prelu.default, X, T((3,)), name="slope_input"),
    row(aten.prelu.default, T((6, 3)), W(3), name="rank2"),
    row(aten.prelu.default, T((6,)), W(1), name="rank1"),
    row(aten.prelu.default, T((6,)), T((), weight=True), name="0d_slope"),
    row(aten.prelu.default, BRAIN, T((3,), torch.bfloat16, weight=True), name="bf16"),
    row(aten._prelu_kernel.default, X, W(1, 3, 1, 1), dynamic=True),
    row(aten.glu.default, T((2, 6, 4, 4)), 1, name="channels"),
    row(aten.glu.default, T((2, 6, 4, 4)), dynamic=True),
    row(aten.glu.default, HALF, name="fp16", tolerance=5e-3),
]
