"""Rows of converters/scan.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V

aten = torch.ops.aten
I64, BOOL = torch.int64, torch.bool

X = T((3, 7, 4))
TIES = V(1.0, 3.0, 3.0, 2.0, 3.0, -1.0, 4.0, 4.0)
RISING = V(*range(16))
FALLING = V(*range(16, 0, -1))
EQUAL = V(*[2.0] * 16)
LATE = V(*[1.0] * 12, math.nan, *[math.inf, -math.inf, 0.0])
SPECIAL = V(1.0, -math.inf, 2.0, math.nan, 5.0, math.nan, math.inf, 0.0)
BOTH = (aten.cummax.default, aten.cummin.default)

ROWS = [
    *(OpRow(op, (X, 1), name="middle") for op in BOTH),
    *(OpRow(op, (T((5, 1, 9)), -1), name="negative") for op in BOTH),
    *(OpRow(op, (TIES, 0), name="ties") for op in BOTH),
    *(OpRow(op, (RISING, 0), name="rising") for op in BOTH),
    *(OpRow(op, (FALLING, 0), name="falling") for op in BOTH),
    *(OpRow(op, (EQUAL, 0), name="equal") for op in BOTH),
    *(OpRow(op, (V(*[2] * 16, dtype=I64), 0), name="equal_int64") for op in BOTH),
    OpRow(aten.cummax.default, (V(*range(16), dtype=I64), 0), name="rising_int64"),
    OpRow(aten.cummin.default, (V(*range(16, 0, -1), dtype=I64), 0), name="falling_int64"),
    *(OpRow(op, (LATE, 0), name="late") for op in BOTH),
    *(OpRow(op, (SPECIAL, 0), name="special") for op in BOTH),
    *(OpRow(op, (T((6,), I64), 0), name="int64") for op in BOTH),
    *(OpRow(op, (T((6,), BOOL), 0), name="bool") for op in BOTH),
    *(OpRow(op, (T(()), 0), name="0d") for op in BOTH),
    *(OpRow(op, (T((2, 1)), 1), name="one", dynamic=True) for op in BOTH),
    *(OpRow(op, (X, 0), name="x", dynamic=True, rejected="the dynamic size") for op in BOTH),
    OpRow(aten.cummax.default, (X, 2), call=lambda x, dim: x.cummax(dim).values, name="values"),
]
