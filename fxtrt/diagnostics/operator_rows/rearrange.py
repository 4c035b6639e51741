"""Rows of converters/rearrange.py."""

from __future__ import annotations

import math

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((2, 3, 4))
SQUARE = T((2, 4, 5))

ROWS = [
    OpRow(aten.pixel_shuffle.default, (T((2, 12, 3, 5)), 2), dynamic=True),
    OpRow(aten.pixel_shuffle.default, (T((9, 3, 2)), 3), name="unbatched"),
    OpRow(aten.pixel_shuffle.default, (T((2, 2, 4, 3, 5)), 2), name="two_batches"),
    OpRow(
        aten.pixel_shuffle.default,
        (T((1, 1, 1, 1, 4, 2, 2)), 2),
        name="rank_7",
        rejected="rank 7",
    ),
    OpRow(aten.pixel_unshuffle.default, (T((2, 3, 4, 6)), 2), dynamic=True),
    OpRow(aten.pixel_unshuffle.default, (T((1, 6, 3)), 3), name="unbatched"),
    OpRow(aten.channel_shuffle.default, (T((2, 6, 3, 5)), 3), dynamic=True),
    OpRow(aten.channel_shuffle.default, (T((2, 6, 4)), 2), name="rank_3"),
    OpRow(aten.flip.default, (X, [-1, 0]), dynamic=True),
    OpRow(aten.flip.default, (X, []), name="nothing"),
    OpRow(aten.flip.default, (T(()), [0]), name="0d"),
    OpRow(aten.flip.default, (T((3, 4), torch.bool), [0]), name="bool"),
    OpRow(aten.flip.default, (T((3, 4), torch.int64), [1]), name="int64"),
    OpRow(aten.roll.default, (X, [1, -2], [1, -1]), dynamic=True),
    OpRow(aten.roll.default, (X, [5]), dynamic=True, name="flattened"),
    OpRow(aten.roll.default, (X, [9], [2]), dynamic=True, name="more_than_once_around"),
    OpRow(aten.roll.default, (X, [1, 2], [1, 1]), name="twice_the_same"),
    OpRow(aten.roll.default, (X, [4], [2]), name="once_around"),
    OpRow(aten.roll.default, (T(()), [4]), name="0d"),
    OpRow(aten.repeat.default, (X, [2, 1, 3]), dynamic=True),
    OpRow(aten.repeat.default, (X, [3, 2, 1, 1]), dynamic=True, name="new_leading"),
    OpRow(aten.repeat.default, (X, [1, 1, 1, 1]), dynamic=True, name="only_rank"),
    OpRow(aten.repeat.default, (T(()), [2, 3]), name="0d"),
    OpRow(aten.repeat.default, (T((2,), torch.bool), [3]), name="bool"),
    OpRow(aten.repeat.default, (X,), call=lambda x: x.tile(2, 2), dynamic=True, name="tile"),
    OpRow(
        aten.repeat.default,
        (X, T((5, 2))),
        call=lambda x, y: aten.repeat.default(x, [1, y.shape[0], 1]),
        dynamic=True,
        name="by_a_size",
    ),
    OpRow(aten.cumsum.default, (X, 1), dynamic=True),
    OpRow(aten.cumsum.default, (X, -1), name="negative"),
    OpRow(aten.cumsum.default, (T((5,), torch.int32), 0), name="int32_gives_int64"),
    OpRow(aten.cumsum.default, (T((5,), torch.bool), 0), name="bool_gives_int64"),
    OpRow(aten.cumsum.default, (T((5,), torch.int64), 0), {"dtype": torch.float32}, name="dtype"),
    OpRow(aten.cumsum.default, (T(()), 0), name="0d"),
    OpRow(aten.tril.default, (SQUARE,), name="static"),
    OpRow(aten.tril.default, (T((2, 2), values=(1.0, math.nan, math.inf, 2.0)),), name="nan"),
    OpRow(aten.tril.default, (SQUARE, -1), name="below"),
    OpRow(aten.triu.default, (SQUARE, 2), name="above"),
    OpRow(aten.triu.default, (T((3, 3), torch.bool),), name="bool"),
    OpRow(aten.triu.default, (T((3, 3), torch.int64),), name="int64"),
]
