"""Rows of converters/padding.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((2, 3, 5, 6))

ROWS = [
    OpRow(aten.constant_pad_nd.default, (X, [1, 2, 3, 4]), dynamic=True),
    OpRow(aten.constant_pad_nd.default, (X, [0, 2, 0, 1], 1.5), dynamic=True, name="value"),
    OpRow(aten.constant_pad_nd.default, (X, [1, 0, 0, 0, 0, 2], -math.inf), name="channels"),
    OpRow(aten.constant_pad_nd.default, (X, [-1, -2, 0, -1]), dynamic=True, name="crop"),
    OpRow(aten.constant_pad_nd.default, (X, [-1, 2, 3, -2]), dynamic=True, name="crop_and_pad"),
    OpRow(aten.constant_pad_nd.default, (X, [0, 0]), name="nothing"),
    OpRow(aten.constant_pad_nd.default, (T((3,), torch.int32), [1, 1], 2), name="int32"),
    OpRow(aten.constant_pad_nd.default, (T((3,), torch.int64), [1, 1], 2), name="int64"),
    OpRow(aten.constant_pad_nd.default, (T((3,), torch.bool), [1, 1], True), name="bool"),
    OpRow(aten.constant_pad_nd.default, (T((3,), torch.float16), [1, 1], 0.1), name="fp16"),
    OpRow(
        aten.constant_pad_nd.default,
        (X, T((4, 4))),
        call=lambda x, y: aten.constant_pad_nd.default(x, [0, y.shape[0], y.shape[1], 0]),
        dynamic=True,
        name="by_sizes",
    ),
    OpRow(
        aten.constant_pad_nd.default,
        (X,),
        call=lambda x: aten.constant_pad_nd.default(x, [0, -x.shape[3] % 4, 0, -x.shape[2] % 4]),
        dynamic=True,
        name="to_a_multiple",
    ),
    OpRow(aten.pad.default, (X, [1, 2, 3, 4]), dynamic=True),
    OpRow(aten.pad.default, (X, [1, 2], "constant", 2.0), dynamic=True, name="value"),
    OpRow(aten.pad.default, (X, [1, 2, 3, 4], "reflect"), dynamic=True, name="reflect"),
    OpRow(aten.pad.default, (X, [1, 2, 3, 4], "replicate"), dynamic=True, name="replicate"),
    OpRow(aten.pad.default, (X, [1, 2, 3, 4], "circular"), dynamic=True, name="circular"),
    OpRow(
        aten.pad.default,
        (X, [2, -1, 0, 0], "circular"),
        name="circular_crop",
        rejected="pad=[2, -1, 0, 0]",
    ),
    OpRow(aten.pad.default, (X, [2, -1, 0, 0], "reflect"), name="reflect_crop"),
    OpRow(aten.pad.default, (X, [-2, 3, -1, -1], "replicate"), name="replicate_crop"),
    OpRow(aten.reflection_pad1d.default, (T((2, 3, 6)), [5, 2]), dynamic=True),
    OpRow(aten.reflection_pad1d.default, (T((3, 6)), [2, -3]), name="unbatched_crop"),
    OpRow(aten.reflection_pad2d.default, (X, [1, 2, 3, 4]), dynamic=True),
    OpRow(aten.reflection_pad3d.default, (X, [1, 2, 3, 4, 2, 1]), dynamic=True),
    OpRow(aten.replication_pad1d.default, (T((2, 3, 6)), [7, 2]), dynamic=True),
    OpRow(aten.replication_pad2d.default, (X, [1, 2, -3, 4]), dynamic=True),
    OpRow(aten.replication_pad3d.default, (X, [1, 2, 3, 4, 2, 1]), dynamic=True),
]
