"""Rows of converters/angle.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V, W

aten = torch.ops.aten
atan2 = aten.atan2.default
I64 = torch.int64

VALUES = (0.0, -0.0, 1.0, -2.0, math.inf, -math.inf, 1e-30, -3e38, math.nan)
COLUMN = T((len(VALUES), 1), values=VALUES)

ROWS = [
    OpRow(atan2, (T((2, 3, 4)), T((3, 1))), dynamic=True),
    OpRow(atan2, (COLUMN, V(*VALUES)), name="special", float16=False),
    OpRow(atan2, (T((40,)), W(40)), name="weight"),
    OpRow(atan2, (T((5, 5), I64), T((5,), I64)), name="int"),
    OpRow(atan2, (T((4,), torch.bool), T((4,))), name="bool"),
    OpRow(atan2, (T(()), T(())), name="0d"),
    OpRow(
        atan2,
        (T((30,), torch.bfloat16), T((30,), torch.bfloat16)),
        name="bfloat16",
        tolerance=2e-2,
    ),
]
