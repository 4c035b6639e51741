"""Rows of converters/indexing.py."""

from __future__ import annotations

import torch

from .row import OpRow, T, V

aten = torch.ops.aten

X = T((4, 5, 6))
I64 = torch.int64


def I(*shape: int, low: int = -4, high: int = 4, weight: bool = False) -> T:  # noqa: E743
    """Indices in [low, high)."""
    return T(shape, I64, low=low, high=high, weight=weight)


ENDS = V(0, -1, 3, -4, dtype=I64)

ROWS = [
    OpRow(aten.index.Tensor, (X, [I(3)]), dynamic=True),
    OpRow(aten.index.Tensor, (X, [None, I(2, 3)]), dynamic=True, name="rank_2"),
    OpRow(aten.index.Tensor, (X, [None, None, I()]), dynamic=True, name="0d"),
    OpRow(aten.index.Tensor, (X, [I(3, weight=True)]), dynamic=True, name="weight"),
    OpRow(aten.index.Tensor, (X, [I(3, low=0, weight=True)]), dynamic=True, name="weight_from_0"),
    OpRow(aten.index.Tensor, (X, [T((3,), torch.int32, low=-4, high=4)]), name="int32"),
    OpRow(aten.index.Tensor, (X, [I(3), I(3)]), dynamic=True, name="two"),
    OpRow(aten.index.Tensor, (X, [I(3, 1), I(2)]), dynamic=True, name="broadcast"),
    OpRow(aten.index.Tensor, (X, [None, I(3), I(3)]), dynamic=True, name="two_adjacent_last"),
    OpRow(aten.index.Tensor, (X, [I(3), None, I(3)]), dynamic=True, name="two_apart"),
    OpRow(aten.index.Tensor, (X, [I(2, 3), I(3), I(2, 3)]), dynamic=True, name="three"),
    OpRow(
        aten.index.Tensor,
        (X, [None, I(2, 1, weight=True), I(3, weight=True)]),
        name="two_weights",
    ),
    OpRow(aten.index.Tensor, (X, [ENDS, ENDS, ENDS]), dynamic=True, name="ends"),
    OpRow(aten.index.Tensor, (X, [I(3), I(3, weight=True)]), name="one_of_two_is_weight"),
    OpRow(aten.index.Tensor, (T((4, 5), torch.bool), [I(3), I(3)]), name="bool_data"),
    OpRow(aten.index.Tensor, (T((4, 5), I64), [I(3)]), name="int64_data"),
    OpRow(
        aten.index.Tensor,
        (X, T((4,))),
        call=lambda x, scores: x[scores.topk(2).indices],
        dynamic=True,
        name="topk",
    ),
    OpRow(
        aten.index.Tensor,
        (X, I(6)),
        call=lambda x, index: x[index.topk(6).values],
        name="topk_of_negative",
    ),
    OpRow(
        aten.index.Tensor,
        (T((2, 7, 4)), T((2, 7))),
        call=lambda boxes, scores: boxes[
            torch.arange(2).unsqueeze(1), scores.sort(descending=True).indices[:, :3]
        ],
        name="batched_topk",
    ),
    OpRow(aten.index_select.default, (X, 1, I(3, low=0)), dynamic=True),
    OpRow(aten.index_select.default, (X, -1, T((7,), torch.int32, low=0, high=6)), name="int32"),
    OpRow(aten.index_select.default, (X, 0, I(low=0)), name="0d_index"),
    OpRow(aten.index_select.default, (T(()), 0, I(1, low=0, high=1)), name="0d"),
    OpRow(aten.embedding.default, (T((9, 3)), I(2, 4, low=0, high=9)), dynamic=True),
    OpRow(
        aten.embedding.default,
        (T((9, 3), weight=True), I(2, low=0, high=9), 3),
        name="padding_idx",
    ),
    OpRow(aten.gather.default, (X, 1, I(4, 9, 6, low=0)), dynamic=True),
    OpRow(aten.gather.default, (X, -1, I(3, 2, 7, low=0)), dynamic=True, name="smaller_index"),
    OpRow(aten.gather.default, (T((5,), I64), 0, I(3, low=0)), name="int64"),
    OpRow(aten.gather.default, (T(()), 0, I(low=0, high=1)), name="0d"),
    OpRow(aten.gather.default, (T((3,)), 0, I(low=0, high=3)), name="0d_index"),
    OpRow(
        aten.gather.default,
        (T((2, 7, 4)), I(2, 3, low=0)),
        call=lambda boxes, index: boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)),
        name="boxes",
    ),
]
