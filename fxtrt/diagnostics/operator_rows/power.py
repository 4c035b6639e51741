"""Rows of converters/power.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten
I64 = torch.int64

X = T((2, 3))
POSITIVE = T((2, 3), low=0.1, high=4.0)
IX = T((2, 3), I64)

ROWS = [
    *(
        OpRow(aten.pow.Tensor_Scalar, (X, exponent), name=f"to-{exponent}", dynamic=True)
        for exponent in (1, 2, 3, 4.0, 5, -1, 0)
    ),
    *(
        OpRow(aten.pow.Tensor_Scalar, (POSITIVE, exponent), name=f"to-{exponent}")
        for exponent in (0.5, -0.5, 1.7, -2.3)
    ),
    OpRow(aten.pow.Tensor_Scalar, (X, 1.5), name="negative-base-is-nan"),
    OpRow(aten.pow.Tensor_Scalar, (IX, 11), name="int"),
    OpRow(aten.pow.Tensor_Scalar, (IX, 2.0), name="int-float"),
    OpRow(aten.pow.Tensor_Scalar, (T((3,), I64, 1, 9), 0.5), name="int-root"),
    OpRow(aten.pow.Tensor_Scalar, (T((3,), torch.bool), 2), name="bool"),
    OpRow(aten.pow.Tensor_Scalar, (IX, 0), name="int-zero", rejected="not for 0"),
    OpRow(aten.pow.Tensor_Scalar, (T((3,), torch.float16), 2), name="half", tolerance=1e-3),
    OpRow(aten.pow.Tensor_Tensor, (POSITIVE, T((3,))), dynamic=True),
    OpRow(aten.pow.Tensor_Tensor, (POSITIVE, IX), name="float-int"),
    OpRow(aten.pow.Tensor_Tensor, (IX, IX), name="x", rejected="not for a tensor"),
    OpRow(aten.pow.Scalar, (2.0, X), dynamic=True),
    OpRow(aten.pow.Scalar, (2, IX), name="x", rejected="not for a tensor"),
]
