"""Rows of converters/division.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V, W

aten = torch.ops.aten
F16, I32, I64 = torch.float16, torch.int32, torch.int64

X = T((2, 3, 4))
FAR = T((64,), low=-300.0, high=300.0)
HALF = T((64,), F16, -300.0, 300.0)
IX = T((5, 7), I64, -20, 21)
IPOS = T((7,), I64, 1, 6)
INEG = T((5, 7), I32, -6, -1)
SPECIAL = V(math.inf, -math.inf, math.nan, 0.0, -0.5, 3e38)
FINITE = V(3e38, -3e38, 2.0**24 + 2, -(2.0**30) - 128, 1e-30, -1e-30, 5.5, -5.5)
LARGEST = V(65504.0, -65504.0, 65472.0, 2049.0, 0.0009765625, dtype=F16)
FLOOR = {"rounding_mode": "floor"}
BY_TENSOR = "by a tensor needs fmod"

ROWS = [
    OpRow(aten.div.Tensor, (X, T((4,), low=1.0, high=2.0)), dynamic=True),
    OpRow(aten.div.Tensor, (X, W(4, low=1.0, high=2.0)), name="weight"),
    OpRow(aten.div.Tensor, (IX, IPOS), name="int"),
    OpRow(aten.div.Tensor, (IX, 2), name="int-number"),
    OpRow(aten.div.Tensor, (T((4,), torch.bool), 2), name="bool"),
    OpRow(
        aten.div.Tensor,
        (X,),
        call=lambda x: aten.div.Tensor(x, x.shape[1]),
        dynamic=True,
        name="size",
    ),
    OpRow(aten.div.Tensor, (T((4,), F16, 1e3, 6e4), 1e6), name="float16-range", tolerance=1e-3),
    OpRow(aten.div.Scalar, (IX, 4)),
    OpRow(aten.div.Tensor_mode, (IX, IPOS), FLOOR, name="int-floor"),
    OpRow(aten.div.Tensor_mode, (IX, INEG), {"rounding_mode": "trunc"}, name="int-trunc"),
    OpRow(aten.div.Tensor_mode, (IX, IPOS), {"rounding_mode": None}, name="int-none"),
    OpRow(
        aten.div.Tensor_mode,
        (FAR, T((64,), low=1.0, high=9.0)),
        {"rounding_mode": "trunc"},
        dynamic=True,
        name="trunc",
    ),
    OpRow(aten.div.Tensor_mode, (HALF, HALF), {"rounding_mode": "trunc"}, name="float16-trunc"),
    OpRow(aten.div.Tensor_mode, (FAR, 8), FLOOR, name="floor"),
    OpRow(aten.div.Tensor_mode, (FAR, FAR), FLOOR, name="x", rejected=BY_TENSOR),
    OpRow(aten.div.Scalar_mode, (IX, 3), FLOOR, dynamic=True),
    OpRow(
        aten.div.Tensor_mode,
        (T((500,), torch.bfloat16, -300.0, 300.0), T((500,), torch.bfloat16, 1.0, 20.0)),
        {"rounding_mode": "trunc"},
        name="bfloat16-trunc",
    ),
    OpRow(aten.div.Scalar_mode, (IX, 2.5), {"rounding_mode": "trunc"}, name="int-float"),
    OpRow(
        aten.div.Scalar_mode,
        (FAR, 0.1),
        FLOOR,
        name="x",
        rejected="by 0.1 needs fmod",
    ),
    OpRow(aten.floor_divide.default, (IX, IPOS), dynamic=True),
    OpRow(aten.floor_divide.default, (IX, INEG), name="negative"),
    OpRow(aten.floor_divide.default, (IX, -3), name="negative-number"),
    OpRow(aten.floor_divide.default, (FAR, 4), name="float"),
    OpRow(aten.floor_divide.default, (FAR, 3), name="by-3", rejected="by 3 needs fmod"),
    OpRow(aten.floor_divide.default, (HALF, 3), name="float16-by-3"),
    OpRow(aten.floor_divide.default, (SPECIAL, 2), name="special"),
    OpRow(aten.div.Tensor_mode, (SPECIAL, -4), FLOOR, name="floor-special"),
    OpRow(aten.floor_divide.default, (FAR, FAR), name="x", rejected=BY_TENSOR),
    OpRow(aten.floor_divide.Scalar, (HALF, 2.0), name="power-of-two"),
    OpRow(aten.floor_divide.Scalar, (FAR, 0.125), name="fraction", rejected="by 0.125 needs"),
    OpRow(aten.remainder.Tensor, (IX, IPOS), dynamic=True),
    OpRow(aten.remainder.Tensor, (IX, INEG), name="negative"),
    OpRow(aten.remainder.Tensor, (FAR, FAR), name="x", rejected=BY_TENSOR),
    OpRow(aten.remainder.Scalar, (IX, 4), dynamic=True),
    OpRow(aten.remainder.Scalar, (FAR, 16.0), name="float", dynamic=True),
    OpRow(aten.remainder.Scalar, (FAR, -4), name="negative"),
    OpRow(aten.remainder.Scalar, (FINITE, 4), name="all-finite", tolerance=0.0),
    OpRow(aten.remainder.Scalar, (FINITE, -2), name="all-finite-negative", tolerance=0.0),
    OpRow(aten.remainder.Scalar, (FAR, 10.0), name="by-10", rejected="by 10.0 needs fmod"),
    OpRow(aten.remainder.Scalar, (LARGEST, 3), name="largest-float16", tolerance=0.0),
    OpRow(
        aten.remainder.Scalar,
        (X,),
        call=lambda x: aten.remainder.Scalar(x, x.shape[1]),
        dynamic=True,
        name="size",
        rejected="needs fmod",
    ),
    OpRow(aten.remainder.Scalar, (HALF, 3), name="float16"),
    OpRow(aten.remainder.Scalar, (IX, 0.1), name="x", rejected="by 0.1 needs fmod"),
    OpRow(aten.remainder.Scalar_Tensor, (17, INEG)),
    OpRow(aten.fmod.Tensor, (IX, INEG)),
    OpRow(aten.fmod.Tensor, (FAR, FAR), name="x", rejected=BY_TENSOR),
    OpRow(aten.fmod.Scalar, (FAR, 8), dynamic=True),
    OpRow(aten.fmod.Scalar, (FINITE, 8), name="all-finite", tolerance=0.0),
    OpRow(aten.fmod.Scalar, (FAR, 10), name="by-10", rejected="by 10 needs fmod"),
    OpRow(aten.fmod.Scalar, (IX, 4), name="int"),
]
