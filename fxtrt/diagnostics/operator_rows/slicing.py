"""Rows of converters/slicing.py."""

from __future__ import annotations

import sys

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((3, 6, 8))
END = sys.maxsize

ROWS = [
    OpRow(aten.slice.Tensor, (X, 1, 2, 5), dynamic=True),
    OpRow(aten.slice.Tensor, (X, -1, None, None), dynamic=True, name="whole"),
    OpRow(aten.slice.Tensor, (X, 1, 0, END), dynamic=True, name="max_end"),
    OpRow(aten.slice.Tensor, (X, 2, -3, END), dynamic=True, name="negative_start"),
    OpRow(aten.slice.Tensor, (X, 2, 1, -2), dynamic=True, name="negative_end"),
    OpRow(aten.slice.Tensor, (X, 2, -100, 100), dynamic=True, name="clamped"),
    OpRow(aten.slice.Tensor, (X, 2, 1, END, 3), dynamic=True, name="step"),
    OpRow(aten.slice.Tensor, (X, 2, 0, END, 4), dynamic=True, name="box_deltas"),
    OpRow(aten.slice.Tensor, (X, 0, 3, 5), rejected="is empty", name="empty"),
    OpRow(aten.slice.Tensor, (T((5,), torch.bool), 0, 1, 4), dynamic=True, name="bool"),
    OpRow(aten.slice.Tensor, (T((5,), torch.int64), 0, 1, 4), dynamic=True, name="int64"),
    OpRow(aten.slice.Tensor, (T((5, 2), torch.float16), 0, 1, 4), name="fp16"),
    OpRow(
        aten.slice.Tensor,
        (X, T((5, 2))),
        call=lambda x, y: aten.slice.Tensor(x, 1, 0, y.shape[0]),
        dynamic=True,
        name="end_of_another",
    ),
    OpRow(
        aten.slice.Tensor,
        (X, T((2, 2))),
        call=lambda x, y: aten.slice.Tensor(x, 2, y.shape[0], -y.shape[0]),
        dynamic=True,
        name="both_of_another",
    ),
    OpRow(aten.select.int, (X, 1, 2), dynamic=True),
    OpRow(aten.select.int, (X, -1, -2), dynamic=True, name="negative"),
    OpRow(aten.select.int, (T((4,)), 0, -1), dynamic=True, name="to_0d"),
    OpRow(aten.select.int, (T((4, 3), torch.bool), 1, 0), dynamic=True, name="bool"),
    OpRow(aten.select.int, (T((4, 3), torch.int64), 1, 0), dynamic=True, name="int64"),
    OpRow(
        aten.select.int,
        (X, T((2, 2))),
        call=lambda x, y: aten.select.int(x, 1, y.shape[0]),
        dynamic=True,
        name="index_of_another",
    ),
    OpRow(aten.split.Tensor, (X, 4, 1), dynamic=True, name="uneven"),
    OpRow(aten.split.Tensor, (X, 9, -1), name="one_part"),
    OpRow(
        aten.split.Tensor,
        (X,),
        call=lambda x: x.chunk(2, dim=-1)[1],
        dynamic=True,
        name="chunk_one_read",
    ),
    OpRow(aten.split_with_sizes.default, (X, [1, 2, 3], 1), dynamic=True),
    OpRow(aten.split_with_sizes.default, (T((6, 2), torch.int32), [2, 4]), name="int32"),
    OpRow(
        aten.split_with_sizes.default,
        (X,),
        call=lambda x: aten.split_with_sizes.default(x, [2, x.shape[2] - 2], -1),
        dynamic=True,
        name="rest",
    ),
    OpRow(aten.unbind.int, (X, 1), name="static"),
    OpRow(aten.unbind.int, (T((7, 4)), -1), name="boxes"),
    OpRow(
        aten.unbind.int,
        (X,),
        call=lambda x: aten.unbind.int(x, 1)[2],
        dynamic=True,
        name="one_read",
    ),
    OpRow(aten.slice_scatter.default, (X, T((3, 3, 8)), 1, 2, 5), dynamic=True),
    OpRow(aten.slice_scatter.default, (X, T((3, 6, 3)), -1, 0, 3), dynamic=True, name="front"),
    OpRow(aten.slice_scatter.default, (X, T((3, 6, 2)), 2, -2, END), dynamic=True, name="back"),
    OpRow(aten.slice_scatter.default, (X, T((3, 6, 8)), 0), name="whole"),
    OpRow(aten.slice_scatter.default, (X, T((2, 6, 8)), 0, 0, END, 2), name="step"),
    OpRow(aten.slice_scatter.default, (X, T((3, 6, 3)), -1, 2, END, 2), name="step_from_2"),
    OpRow(aten.slice_scatter.default, (X, T((3, 2, 8)), 1, -5, -1, 3), name="step_from_behind"),
    OpRow(aten.slice_scatter.default, (X, T((1, 6, 8)), 0, 2, END, 9), name="step_over_the_end"),
    OpRow(
        aten.slice_scatter.default,
        (T((5,), torch.bool), T((3,), torch.bool), 0, 0, END, 2),
        name="step_bool",
    ),
    OpRow(
        aten.slice_scatter.default,
        (T((5,), torch.int64), T((2,), torch.int64), 0, 1, END, 2),
        name="step_int64",
    ),
    OpRow(
        aten.slice_scatter.default,
        (T((4, 1)), T((2, 1)), 0, 0, END, 2),
        dynamic=True,
        name="step_dynamic",
        rejected="step=2 from 0 along a dimension",
    ),
    OpRow(
        aten.slice_scatter.default,
        (X, T((3, 4, 8))),
        call=lambda x, y: aten.slice_scatter.default(x, y, 1, 0, y.shape[1]),
        dynamic=True,
        name="image_into_batch",
    ),
    OpRow(aten.select_scatter.default, (X, T((3, 8)), 1, -2), dynamic=True),
    OpRow(aten.select_scatter.default, (X, T((6, 8)), 0, 0), dynamic=True, name="first"),
    OpRow(aten.select_scatter.default, (T((1, 3)), T((3,)), 0, 0), name="only"),
]
