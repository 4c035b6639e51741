"""Rows of converters/variance.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T, V

aten = torch.ops.aten
F16 = torch.float16

X = T((2, 3, 4))
FAR = T((4, 64), low=1000.0, high=1001.0)
HALF = T((4, 64), F16)

_VARIANCES = (aten.var.correction, aten.std.correction, aten.var_mean.correction)

ROWS = [
    *(OpRow(target, (X, [1, -1]), dynamic=True) for target in _VARIANCES),
    *(OpRow(target, (X,), name="all", dynamic=True) for target in _VARIANCES),
    *(
        OpRow(target, (X, [0]), {"correction": 0, "keepdim": True}, name="biased", dynamic=True)
        for target in _VARIANCES
    ),
    *(OpRow(target, (X, [2]), {"correction": 1.5}, name="fraction") for target in _VARIANCES),
    OpRow(aten.var.correction, (FAR, [1]), name="far-mean", tolerance=1e-3),
    OpRow(aten.var.correction, (T((3, 1)), [1]), name="one-element"),
    OpRow(aten.var.correction, (X, [0]), {"correction": 5}, name="no-freedom"),
    OpRow(aten.std.correction, (HALF, [1]), name="float16", tolerance=2e-3),
    OpRow(aten.logsumexp.default, (X, [1]), dynamic=True),
    OpRow(aten.logsumexp.default, (X, [0, -1], True), dynamic=True, name="keepdim"),
    OpRow(aten.logsumexp.default, (T((2, 3), low=500.0, high=900.0), [1]), name="large"),
    OpRow(aten.logsumexp.default, (V(-math.inf, -math.inf), [0]), name="minus-infinity"),
    OpRow(aten.logsumexp.default, (V(math.inf, 1.0, -math.inf), [0]), name="infinity"),
    OpRow(aten.logsumexp.default, (HALF, [1]), name="float16", tolerance=2e-3),
    OpRow(aten.logsumexp.default, (T((3,), torch.int64), [0]), name="int", rejected="int64"),
    *(
        OpRow(aten.linalg_vector_norm.default, (X, order, [1]), name=f"{order}", dynamic=True)
        for order in (2, 1, math.inf, -math.inf)
    ),
    OpRow(aten.linalg_vector_norm.default, (X,), name="all"),
    OpRow(aten.linalg_vector_norm.default, (X, 2, [-1], True), name="keepdim", dynamic=True),
    OpRow(
        aten.linalg_vector_norm.default,
        (HALF, 2, [1]),
        {"dtype": torch.float32},
        name="dtype",
        tolerance=1e-3,
    ),
    OpRow(aten.linalg_vector_norm.default, (X, 3, [1]), name="3", rejected="ord=3"),
]
