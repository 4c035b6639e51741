"""Rows of converters/matmul.py."""

from __future__ import annotations

import torch

from .row import OpRow, T, W

aten = torch.ops.aten
F16, I64 = torch.float16, torch.int64

IX = T((3, 3), I64)
BETA_ALPHA = {"beta": 0.5, "alpha": 2.0}
NAN = torch.full((2, 5), float("nan"))

ROWS = [
    OpRow(aten.linear.default, (T((2, 4)), W(5, 4), W(5)), dynamic=True),
    OpRow(aten.linear.default, (T((2, 3, 7, 4)), W(5, 4), W(5)), dynamic=True, name="4d"),
    OpRow(aten.linear.default, (T((4,)), W(5, 4), W(5)), name="1d"),
    OpRow(aten.linear.default, (T((2, 3, 4)), W(5, 4)), name="no-bias"),
    OpRow(aten.linear.default, (T((2, 4)), T((5, 4)), T((5,))), dynamic=True, name="tensors"),
    OpRow(
        aten.linear.default,
        (T((2, 4), F16), T((5, 4), F16, weight=True)),
        name="float16",
        tolerance=2e-3,
    ),
    OpRow(aten.linear.default, (T((2, 3, 4)), W(4)), dynamic=True, name="1d-weight"),
    OpRow(aten.linear.default, (T((4,)), T((4,))), name="1d-1d"),
    OpRow(aten.linear.default, (T((2, 4), I64), T((4,), I64)), name="int", rejected="torch.int64"),
    OpRow(aten.mm.default, (T((2, 3)), T((3, 4))), dynamic=True),
    OpRow(aten.mm.default, (T((2, 3)), W(3, 4)), name="weight"),
    OpRow(aten.mm.default, (IX, IX), name="int", rejected="torch.int64"),
    OpRow(aten.bmm.default, (T((5, 2, 3)), T((5, 3, 4))), dynamic=True),
    OpRow(aten.matmul.default, (T((2, 3)), T((3, 4))), dynamic=True),
    OpRow(aten.matmul.default, (T((3,)), T((3,))), name="1d-1d"),
    OpRow(aten.matmul.default, (T((3,)), T((3, 4))), name="1d-2d", dynamic=True),
    OpRow(aten.matmul.default, (T((2, 3)), T((3,))), name="2d-1d", dynamic=True),
    OpRow(aten.matmul.default, (T((3,)), T((5, 3, 4))), name="1d-3d", dynamic=True),
    OpRow(aten.matmul.default, (T((6, 5, 2, 3)), T((3,))), name="4d-1d", dynamic=True),
    OpRow(aten.matmul.default, (T((5, 2, 3)), T((3, 4))), name="3d-2d", dynamic=True),
    OpRow(aten.matmul.default, (T((2, 3)), T((6, 5, 3, 4))), name="2d-4d", dynamic=True),
    OpRow(aten.matmul.default, (T((6, 1, 2, 3)), T((5, 3, 4))), name="broadcast", dynamic=True),
    OpRow(aten.matmul.default, (T((5, 2, 3)), W(3, 4)), name="weight", dynamic=True),
    OpRow(aten.matmul.default, (IX, IX), name="int", rejected="torch.int64"),
    OpRow(aten.mv.default, (T((2, 3)), T((3,))), dynamic=True),
    OpRow(aten.dot.default, (T((3,)), T((3,))), dynamic=True),
    OpRow(aten.addmm.default, (W(5), T((2, 3)), T((3, 5))), dynamic=True),
    OpRow(aten.addmm.default, (T((2, 1)), T((2, 3)), W(3, 5)), BETA_ALPHA, name="scaled"),
    OpRow(aten.addmm.default, (NAN, T((2, 3)), T((3, 5))), {"beta": 0}, name="beta-0"),
    OpRow(aten.addmv.default, (T((2,)), T((2, 3)), T((3,))), BETA_ALPHA, dynamic=True),
    OpRow(aten.baddbmm.default, (T((1, 4)), T((5, 2, 3)), T((5, 3, 4))), BETA_ALPHA, dynamic=True),
]
