"""Rows of converters/shape.py."""

from __future__ import annotations

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((2, 3, 4, 5))
UNIT = T((2, 1, 4, 1, 5))

ROWS = [
    OpRow(aten.view.default, (X, [2, -1]), name="minus_one"),
    OpRow(aten.view.default, (X, [6, 20]), name="static"),
    OpRow(aten.view.default, (T((1, 1)), []), name="to_0d"),
    OpRow(aten.view.default, (T(()), [1, 1]), name="from_0d"),
    OpRow(aten.view.default, (X, [2, 3, 4, 5]), name="same"),
    OpRow(aten.view.default, (T((4, 6), torch.bool), [2, 12]), name="bool"),
    OpRow(aten.view.default, (T((4, 6), torch.int64), [24]), name="int64"),
    OpRow(
        aten.view.default,
        (X,),
        call=lambda x: aten.view.default(x, [x.shape[0], -1]),
        dynamic=True,
        name="flatten",
    ),
    OpRow(
        aten.view.default,
        (T((2, 6, 4, 5)),),
        call=lambda x: aten.view.default(x, [x.shape[0], 2, 3, x.shape[2], x.shape[3]]),
        dynamic=True,
        name="anchors",
    ),
    OpRow(
        aten.view.default,
        (X,),
        call=lambda x: aten.view.default(x, [x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]]),
        dynamic=True,
        name="fold_pairs",
    ),
    OpRow(
        aten.view.default,
        (X,),
        call=lambda x: x.unflatten(2, (2, x.shape[2] // 2)),
        dynamic=True,
        name="unflatten",
    ),
    OpRow(
        aten._unsafe_view.default,
        (X,),
        call=lambda x: aten._unsafe_view.default(x, [x.shape[0], -1, x.shape[3]]),
        dynamic=True,
    ),
    OpRow(aten.squeeze.default, (UNIT,), dynamic=True),
    OpRow(aten.squeeze.default, (T((1, 1)),), name="to_0d"),
    OpRow(aten.squeeze.default, (T(()),), name="0d"),
    OpRow(aten.squeeze.dim, (UNIT, -2), dynamic=True, name="negative"),
    OpRow(aten.squeeze.dim, (UNIT, 0), dynamic=True, name="not_of_size_1"),
    OpRow(aten.squeeze.dim, (T((1, 4)), 0), dynamic=True, name="one_left"),
    OpRow(aten.squeeze.dim, (T(()), 0), name="0d"),
    OpRow(aten.squeeze.dims, (UNIT, [1, -2, 0]), dynamic=True),
    OpRow(aten.unsqueeze.default, (X, 0), dynamic=True),
    OpRow(aten.unsqueeze.default, (X, -1), dynamic=True, name="last"),
    OpRow(aten.unsqueeze.default, (X, -3), dynamic=True, name="middle"),
    OpRow(aten.unsqueeze.default, (T(()), 0), name="0d"),
    OpRow(aten.unsqueeze.default, (T((3,), torch.bool), 1), dynamic=True, name="bool"),
    OpRow(aten.permute.default, (X, [0, 2, -1, 1]), dynamic=True),
    OpRow(aten.permute.default, (X, [0, 1, 2, 3]), name="same"),
    OpRow(aten.permute.default, (T((2, 3, 4), torch.int32), [2, 0, 1]), name="int32"),
    OpRow(aten.transpose.int, (X, -1, 1), dynamic=True),
    OpRow(aten.transpose.int, (T(()), 0, -1), name="0d"),
    OpRow(aten.t.default, (T((3, 4)),), dynamic=True),
    OpRow(aten.t.default, (T((3,)),), name="1d"),
    OpRow(aten.expand.default, (T((2, 1, 4)), [3, 2, 5, -1]), name="new_leading"),
    OpRow(aten.expand.default, (T((2, 3)), [-1, -1]), name="same"),
    OpRow(aten.expand.default, (T(()), [2, 3]), name="0d"),
    OpRow(aten.expand.default, (T((1, 3), torch.bool), [4, 3]), name="bool"),
    OpRow(aten.expand.default, (T((1, 3), torch.int64), [4, 3]), name="int64"),
    OpRow(aten.expand.default, (T((2, 1, 4)), [2, 7, 4]), name="middle"),
    OpRow(
        aten.expand.default,
        (T((1, 3, 1)), X),
        call=lambda x, y: aten.expand.default(x, [y.shape[0], y.shape[3], x.shape[1], 6]),
        dynamic=True,
        name="sizes_of_another",
    ),
    OpRow(aten.expand.default, (T((1, 4)), [6, 3, 4]), name="leading_of_2d"),
]
