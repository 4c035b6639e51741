"""Rows of converters/clamp.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V, W

aten = torch.ops.aten
F16, I32, I64 = torch.float16, torch.int32, torch.int64

X = T((2, 3, 4))
IX = T((2, 3), I64)
INFINITE = V(-math.inf, 0.0, math.inf, 4.0)
FLAGS = T((2, 3, 4), torch.bool)

ROWS = [
    OpRow(aten.clamp.default, (X, -0.5, 0.5), dynamic=True),
    OpRow(aten.clamp.default, (X, 0.5, -0.5), name="crossed"),
    OpRow(aten.clamp.default, (X, 0), name="min"),
    OpRow(aten.clamp.default, (X, None, 0.25), name="max", dynamic=True),
    OpRow(aten.clamp.default, (X, 0, math.inf), name="infinite-bound"),
    OpRow(aten.clamp.default, (IX, -2, 2), name="int"),
    OpRow(aten.clamp.default, (T((2, 3), I32), -1.5, 2), name="int-float"),
    OpRow(aten.clamp.default, (T((2, 3), F16), -0.5, 1.0), name="float16"),
    OpRow(
        aten.clamp.default,
        (T((4, 6), low=-9.0, high=9.0),),
        call=lambda x: aten.clamp.default(x, 0, x.shape[1]),
        dynamic=True,
        name="size",
    ),
    OpRow(aten.hardtanh.default, (X,), dynamic=True),
    OpRow(aten.hardtanh.default, (X, 0.0, 6.0), name="relu6"),
    OpRow(aten.hardtanh.default, (T((2, 3), F16), 0.0, 6.0), name="float16"),
    OpRow(aten.hardtanh.default, (IX, -2, 2), name="int"),
    OpRow(aten.clamp.Tensor, (X, T((4,)), T((3, 1))), dynamic=True),
    OpRow(aten.clamp.Tensor, (X, None, W(4)), name="max"),
    OpRow(aten.clamp.Tensor, (IX, T((3,))), name="int-float"),
    OpRow(aten.clamp_min.default, (X, 0.1), dynamic=True),
    OpRow(aten.clamp_min.default, (T((2, 3), F16), 1e-8), name="float16-tiny"),
    OpRow(aten.clamp_min.default, (IX, 0.5), name="int-float"),
    OpRow(aten.clamp_min.Tensor, (T((4,)), INFINITE), dynamic=True),
    OpRow(aten.clamp_min.Tensor, (FLAGS, T((3, 1), torch.bool)), name="bool"),
    OpRow(aten.clamp_max.Tensor, (FLAGS, T((), torch.bool)), name="bool"),
    OpRow(aten.clamp_max.default, (X, 0.1), dynamic=True),
    OpRow(aten.clamp_max.default, (IX, 1), name="int"),
    OpRow(aten.clamp_max.Tensor, (X, T(())), dynamic=True),
]
