"""Rows of converters/reduction.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten
F16, I32, I64, BOOL = torch.float16, torch.int32, torch.int64, torch.bool

X = T((2, 3, 4))
IX = T((3, 4), I64)
IY = T((3, 4), I32)
BX = T((3, 4), BOOL)
LONG = T((2, 20000), F16, 4.0, 6.0)

_OVER_ALL = (
    aten.sum.default,
    aten.mean.default,
    aten.prod.default,
    aten.max.default,
    aten.min.default,
    aten.any.default,
    aten.all.default,
)
_LOGIC = (aten.any, aten.all)

ROWS = [
    *(OpRow(target, (X,), dynamic=True) for target in _OVER_ALL),
    *(OpRow(target, (T(()),), name="0d") for target in _OVER_ALL),
    *(OpRow(t, (IY,), name="int32") for t in _OVER_ALL if t is not aten.mean.default),
    *(OpRow(t, (BX,), name="bool") for t in _OVER_ALL if t is not aten.mean.default),
    OpRow(aten.sum.default, (IX,), {"dtype": torch.float32}, name="dtype"),
    OpRow(aten.sum.dim_IntList, (X, [1, -1]), dynamic=True),
    OpRow(aten.sum.dim_IntList, (X, [1], True), dynamic=True, name="keepdim"),
    OpRow(aten.sum.dim_IntList, (X, None), name="all"),
    OpRow(aten.sum.dim_IntList, (X, []), name="no-dims"),
    OpRow(aten.sum.dim_IntList, (BX, [0]), name="bool"),
    OpRow(aten.sum.dim_IntList, (IY, [-1]), name="int32"),
    OpRow(aten.sum.dim_IntList, (IX, [0]), {"dtype": torch.float32}, name="dtype"),
    OpRow(aten.mean.dim, (X, [-1]), dynamic=True),
    OpRow(aten.mean.dim, (T((2, 3, 8, 8), F16), [2, 3], True), name="half", tolerance=1e-3),
    OpRow(aten.mean.dim, (LONG, [1]), name="half-sum-overflows", tolerance=1e-3),
    OpRow(aten.mean.dim, (IX, [1]), {"dtype": torch.float32}, name="int-dtype"),
    OpRow(aten.prod.dim_int, (X, -2), dynamic=True),
    OpRow(aten.prod.dim_int, (BX, 1, True), name="bool-keepdim"),
    OpRow(aten.prod.dim_int, (BX, 1), {"dtype": BOOL}, name="to-bool"),
    OpRow(aten.prod.dim_int, (IY, 0), {"dtype": BOOL}, name="int-to-bool"),
    OpRow(aten.prod.default, (BX,), {"dtype": BOOL}, name="to-bool"),
    OpRow(aten.sum.dim_IntList, (BX, [0]), {"dtype": BOOL}, name="to-bool"),
    OpRow(aten.sum.default, (IY,), {"dtype": BOOL}, name="to-bool"),
    OpRow(aten.amax.default, (X, [-1, 0]), dynamic=True),
    OpRow(aten.amax.default, (X,), name="all"),
    OpRow(aten.amax.default, (T((2, 3), I64, 2**40, 2**41), [1], True), name="big-int"),
    OpRow(aten.amax.default, (BX, [0]), name="bool"),
    OpRow(aten.amin.default, (X, [1], True), dynamic=True),
    OpRow(aten.amin.default, (T(()),), name="0d"),
    *(OpRow(op.dim, (BX, -1), dynamic=True) for op in _LOGIC),
    *(OpRow(op.dim, (X, 0, True), name="float-keepdim") for op in _LOGIC),
    *(OpRow(op.dims, (BX, [0, 1]), dynamic=True) for op in _LOGIC),
    *(OpRow(op.dims, (BX, None), name="all") for op in _LOGIC),
    *(OpRow(op.dims, (BX, []), name="no-dims", rejected="dim=[]") for op in _LOGIC),
]
