"""Rows of converters/strided.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten
I64, BOOL = torch.int64, torch.bool

X = T((2, 5, 3))

ROWS = [
    OpRow(aten.diagonal.default, (T((4, 6)),)),
    OpRow(aten.diagonal.default, (X, 0, 1, 2), name="last"),
    OpRow(aten.diagonal.default, (X, 1, -1, 0), name="above-first"),
    OpRow(aten.diagonal.default, (X, -2, 1, 2), name="below"),
    OpRow(aten.diagonal.default, (T((4, 4), I64), -1), name="int64"),
    OpRow(aten.diagonal.default, (T((4, 4), BOOL), 2), name="bool"),
    OpRow(
        aten.diagonal.default,
        (T((4, 4)),),
        dynamic=True,
        name="dynamic",
        rejected="is not static",
    ),
    OpRow(aten.as_strided.default, (X, [2, 15], [15, 1]), name="view"),
    OpRow(aten.as_strided.default, (X, [3, 4], [2, 7], 1), name="apart"),
    OpRow(aten.as_strided.default, (T((9,)), [7, 3], [1, 1]), name="windows"),
    OpRow(aten.as_strided.default, (X, [4, 2], [0, 1]), name="repeated"),
    OpRow(aten.as_strided.default, (X, [], [], 7), name="0d"),
    OpRow(aten.as_strided.default, (T((6,), BOOL), [3], [2]), name="bool"),
    OpRow(aten.as_strided.default, (T((6,), I64), [2, 2], [3, 1]), name="int64"),
    OpRow(
        aten.as_strided.default,
        (T((6, 4)),),
        call=lambda x: aten.as_strided.default(x.t(), [2, 2], [4, 1]),
        name="transposed",
        rejected="own strides",
    ),
    OpRow(
        aten.as_strided.default,
        (T((6, 4)),),
        call=lambda x: aten.as_strided.default(x[:3], [4, 4], [4, 1]),
        name="beyond",
        rejected="beyond the tensor",
    ),
    OpRow(
        aten.as_strided.default,
        (T((6, 4)),),
        call=lambda x: aten.as_strided.default(x[3:], [2, 2], [4, 1], 8),
        name="before",
        rejected="beyond the tensor",
    ),
    OpRow(
        aten.as_strided.default,
        (T((6, 4)), [2, 2], [4, 1]),
        dynamic=True,
        name="dynamic",
        rejected="is dynamic",
    ),
]
