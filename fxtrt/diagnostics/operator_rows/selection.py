"""Rows of converters/selection.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V, W

aten = torch.ops.aten
F16, I32, I64, BOOL = torch.float16, torch.int32, torch.int64, torch.bool

X = T((2, 3, 4))
MASK = T((3, 4), BOOL)
IX = T((3, 4), I64)
SPECIAL = V(math.nan, math.inf, -math.inf, 1.0, 3e38)

ROWS = [
    OpRow(aten.where.self, (MASK, X, T((4,))), dynamic=True),
    OpRow(aten.where.self, (MASK, IX, T((4,))), name="int-float"),
    OpRow(aten.where.self, (MASK, IX, T((3, 1), I32)), name="int64-int32"),
    OpRow(aten.where.self, (MASK, W(4), T(())), name="weight-0d"),
    OpRow(aten.where.self, (MASK, T((3, 4), BOOL), T((4,), BOOL)), name="bool"),
    OpRow(aten.where.ScalarSelf, (MASK, -1.0, X), dynamic=True),
    OpRow(aten.where.ScalarSelf, (MASK, 0.5, IX), name="int-float"),
    OpRow(aten.where.ScalarOther, (MASK, X, -math.inf), dynamic=True),
    OpRow(aten.where.ScalarOther, (MASK, T((4,), F16), 0.0), name="float16"),
    OpRow(aten.where.Scalar, (MASK, 1.0, 0.0), dynamic=True),
    OpRow(aten.where.Scalar, (MASK, 2, 3), name="int"),
    OpRow(aten.masked_fill.Scalar, (X, MASK, -math.inf), dynamic=True),
    OpRow(aten.masked_fill.Scalar, (IX, MASK, 7), name="int"),
    OpRow(aten.masked_fill.Scalar, (T((4,)), MASK, 0.5), name="wider-mask"),
    OpRow(aten.masked_fill.Scalar, (MASK, T((3, 4), BOOL), True), name="bool"),
    OpRow(aten.masked_fill.Tensor, (X, MASK, T(())), dynamic=True),
    OpRow(aten.nan_to_num.default, (SPECIAL,), dynamic=True),
    OpRow(aten.nan_to_num.default, (SPECIAL, 0.5, math.inf, -2.0), name="given"),
    OpRow(aten.nan_to_num.default, (IX,), name="int"),
]
