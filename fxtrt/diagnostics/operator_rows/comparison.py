"""Rows of converters/comparison.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V, W

aten = torch.ops.aten
F16, I32, I64, BOOL = torch.float16, torch.int32, torch.int64, torch.bool

X = T((2, 3, 4))
IX = T((4, 5), I64, -2, 3)
IY = T((5,), I32, -2, 3)
IW = T((4, 1), I64, -2, 3, weight=True)
BX = T((4, 5), BOOL)
LEFT = V(math.nan, 1.0, math.nan, math.inf, 2.0, 3.0, -math.inf)
RIGHT = V(1.0, math.nan, math.nan, math.inf, 3.0, 3.0, math.inf)

_COMPARISONS = (aten.eq, aten.ne, aten.gt, aten.ge, aten.lt, aten.le)
_LOGICAL = (aten.logical_and, aten.logical_or, aten.logical_xor)
_BITWISE = (aten.bitwise_and, aten.bitwise_or, aten.bitwise_xor)

ROWS = [
    *(OpRow(op.Tensor, (X, W(3, 1)), dynamic=True) for op in _COMPARISONS),
    *(OpRow(op.Tensor, (LEFT, RIGHT), name="nan") for op in _COMPARISONS),
    *(OpRow(op.Tensor, (IX, IY), name="int", dynamic=True) for op in _COMPARISONS),
    *(OpRow(op.Tensor, (IX, IW), name="int-weight") for op in _COMPARISONS),
    *(OpRow(op.Tensor, (BX, T((5,), BOOL)), name="bool") for op in _COMPARISONS),
    *(OpRow(op.Tensor, (IX, T((5,))), name="int-float") for op in _COMPARISONS),
    *(OpRow(op.Scalar, (X, 0.5), dynamic=True) for op in _COMPARISONS),
    *(OpRow(op.Scalar, (IX, 0.5), name="int-float") for op in _COMPARISONS),
    *(OpRow(op.Scalar, (IX, -0.5), name="int-negative-float") for op in _COMPARISONS),
    *(OpRow(op.Scalar, (IX, 1), name="int") for op in _COMPARISONS),
    *(OpRow(op.Scalar, (LEFT, 2.0), name="nan") for op in _COMPARISONS),
    OpRow(aten.ge.Scalar, (BX, 0.5), name="bool-float"),
    OpRow(aten.gt.Scalar, (T((9,), F16), 0.1), name="float16"),
    OpRow(
        aten.lt.Scalar,
        (IX,),
        call=lambda x: aten.lt.Scalar(x, x.shape[0]),
        dynamic=True,
        name="size",
    ),
    *(OpRow(op.default, (BX, T((5,), BOOL)), dynamic=True) for op in _LOGICAL),
    *(OpRow(op.default, (IX, V(0.0, 0.5, -1.0, math.nan, 0.0)), name="numbers") for op in _LOGICAL),
    OpRow(aten.logical_not.default, (BX,), dynamic=True),
    OpRow(aten.logical_not.default, (V(0.0, 0.25, math.nan),), name="float"),
    *(OpRow(op.Tensor, (BX, T((5,), BOOL)), dynamic=True) for op in _BITWISE),
    *(OpRow(op.Scalar, (BX, True)) for op in _BITWISE),
    *(OpRow(op.Tensor, (IX, IX), name="int", rejected="torch.int64") for op in _BITWISE),
    OpRow(aten.bitwise_and.Scalar, (BX, 3), name="int", rejected="torch.int64"),
    OpRow(aten.bitwise_not.default, (BX,), dynamic=True),
    OpRow(aten.bitwise_not.default, (IX,), name="int", rejected="torch.int64"),
]
