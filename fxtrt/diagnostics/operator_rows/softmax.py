"""Rows of converters/softmax.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V

aten = torch.ops.aten
F16 = torch.float16

X = T((2, 3, 4))
HALF = T((2, 40), F16)
FAR = V(0.0, -200.0, 90.0)

ROWS = [
    OpRow(aten.softmax.int, (X, 1), dynamic=True),
    OpRow(aten.softmax.int, (X, -1), dynamic=True, name="last"),
    OpRow(aten.softmax.int, (T((5,)), 0), dynamic=True, name="1d"),
    OpRow(aten.softmax.int, (HALF, 1, torch.float32), name="dtype"),
    OpRow(aten.softmax.int, (T((2, 3), torch.int64), 1, torch.float32), name="int"),
    OpRow(aten.softmax.int, (T(()), 0), name="0d", rejected="0-d"),
    OpRow(aten._softmax.default, (X, 0, False), dynamic=True),
    OpRow(aten._softmax.default, (V(1.0, -math.inf, 2.0), 0, False), name="infinity"),
    OpRow(aten.log_softmax.int, (X, -2), dynamic=True),
    OpRow(aten.log_softmax.int, (FAR, 0), name="no-underflow"),
    OpRow(aten.log_softmax.int, (HALF, 1), name="float16", tolerance=2e-3),
    OpRow(aten.log_softmax.int, (HALF, 1, torch.float32), name="dtype"),
    OpRow(aten.log_softmax.int, (T(()), 0), name="0d", rejected="0-d"),
    OpRow(aten._log_softmax.default, (X, 2, False), dynamic=True),
    OpRow(aten._log_softmax.default, (FAR, 0, False), name="no-underflow"),
]
