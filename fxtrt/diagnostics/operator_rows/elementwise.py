"""Rows of converters/elementwise.py."""

from __future__ import annotations

import torch

from .row import OpRow, T, W

aten = torch.ops.aten
F16, I32, I64, BOOL = torch.float16, torch.int32, torch.int64, torch.bool

X = T((2, 3, 4))
ROW = T((4,))
IX = T((2, 3), I64)
IY = T((2, 3), I32)
BX = T((2, 3), BOOL)

ROWS = [
    OpRow(aten.add.Tensor, (X, ROW), dynamic=True),
    OpRow(aten.add.Tensor, (X, X), {"alpha": 2.5}, name="alpha"),
    OpRow(aten.add.Tensor, (IX, IX), {"alpha": 3}, name="int-alpha"),
    OpRow(aten.add.Tensor, (IX, IY), name="int64-int32"),
    OpRow(aten.add.Tensor, (IX, T((2, 3))), name="int-float"),
    OpRow(aten.add.Tensor, (IX, T(())), name="int-float-0d"),
    OpRow(aten.add.Tensor, (T(()), T(())), name="0d"),
    OpRow(aten.add.Tensor, (T((), I64), 0.5), name="0d-int-float-number"),
    OpRow(aten.add.Tensor, (X, W(3, 1)), dynamic=True, name="weight"),
    OpRow(aten.add.Tensor, (T((2, 3), F16), W(3)), name="float16-weight-float32"),
    OpRow(aten.add.Tensor, (T((2, 3), F16), 1e6), name="float16-overflow", tolerance=1e-3),
    OpRow(aten.add.Tensor, (BX, BX), name="bool"),
    OpRow(aten.add.Tensor, (BX, IX), name="bool-int"),
    OpRow(aten.add.Tensor, (BX, BX), {"alpha": False}, name="bool-alpha", rejected="alpha=False"),
    OpRow(
        aten.add.Tensor,
        (X,),
        call=lambda x: aten.add.Tensor(x, x.shape[2]),
        dynamic=True,
        name="size",
    ),
    OpRow(aten.add.Scalar, (X, 2), {"alpha": 0.5}, dynamic=True),
    OpRow(aten.add.Scalar, (IX, 0.25), name="int-float-number"),
    OpRow(aten.add.Scalar, (BX, 2), name="bool-int-number"),
    OpRow(aten.sub.Tensor, (X, ROW), {"alpha": 2}, dynamic=True),
    OpRow(aten.sub.Tensor, (IY, IX), name="int32-int64"),
    OpRow(aten.sub.Scalar, (IX, 1.5)),
    OpRow(aten.rsub.Tensor, (X, ROW), {"alpha": 2}, dynamic=True),
    OpRow(aten.rsub.Scalar, (X, 1), {"alpha": 3}, dynamic=True),
    OpRow(aten.rsub.Scalar, (IX, 0.5), name="int-float-number"),
    OpRow(aten.mul.Tensor, (X, T((3, 1))), dynamic=True),
    OpRow(aten.mul.Tensor, (IY, 0.25), name="int-float-number"),
    OpRow(aten.mul.Tensor, (BX, BX), name="bool"),
    OpRow(aten.mul.Tensor, (BX, 3.0), name="bool-float-number"),
    OpRow(
        aten.mul.Tensor,
        (T((8,), F16, 3e4, 6e4), 1e-8),
        name="float16-tiny-number",
        tolerance=1e-4,
    ),
    OpRow(aten.mul.Scalar, (X, 2), dynamic=True),
    OpRow(aten.mul.Scalar, (T((2, 3), torch.bfloat16), 3.0), name="bfloat16", tolerance=1e-2),
    OpRow(aten.maximum.default, (X, ROW), dynamic=True),
    OpRow(aten.maximum.default, (IX, T((2, 1))), name="int-float"),
    OpRow(aten.maximum.default, (BX, BX), name="bool"),
    OpRow(aten.minimum.default, (X, ROW), dynamic=True),
    OpRow(aten.minimum.default, (BX, BX), name="bool"),
    OpRow(aten.square.default, (X,), dynamic=True),
    OpRow(aten.square.default, (IX,), name="int"),
    OpRow(aten.lerp.Scalar, (X, ROW, 0.25), dynamic=True),
    OpRow(aten.lerp.Scalar, (X, ROW, 0.75), name="far"),
    OpRow(aten.lerp.Tensor, (X, X, T((4,), low=-1.0, high=2.0)), dynamic=True),
    OpRow(
        aten.lerp.Tensor,
        (T((3,), low=1e8, high=2e8), T((3,)), torch.tensor([1.0, 0.0, 0.5])),
        name="ends-are-exact",
        tolerance=0.0,
    ),
    OpRow(aten.addcmul.default, (X, T((3, 1)), ROW), {"value": 0.5}, dynamic=True),
    OpRow(aten.addcmul.default, (IX, IX, IX), {"value": 2}, name="int"),
    OpRow(aten.addcdiv.default, (X, T((3, 1)), T((4,), low=1.0, high=2.0)), {"value": -2}),
]
