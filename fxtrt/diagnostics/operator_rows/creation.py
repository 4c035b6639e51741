"""Rows of converters/creation.py: an input gives the sizes, so that there is a network to run."""

from __future__ import annotations

import math
from typing import Any

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((2, 3, 4))


def like(target: Any, *arguments: Any, name: str = "", **options: Any) -> OpRow:
    """A call with the shape of an input as its first argument."""
    return OpRow(
        target,
        (X,),
        call=lambda x: target([x.shape[0], 5, x.shape[2]], *arguments, **options),
        dynamic=True,
        name=name,
    )


def new(target: Any, *arguments: Any, name: str = "", **options: Any) -> OpRow:
    """A call with an input and sizes of it."""
    return OpRow(
        target,
        (X,),
        call=lambda x: target(x, [x.shape[1], 7], *arguments, **options),
        dynamic=True,
        name=name,
    )


ROWS = [
    like(aten.full.default, 2.5),
    like(aten.full.default, -math.inf, name="inf"),
    like(aten.full.default, True, name="bool"),
    like(aten.full.default, 7, name="int64"),
    like(aten.full.default, 2, dtype=torch.float16, name="fp16"),
    OpRow(aten.full.default, ([], 3.0), name="0d"),
    OpRow(aten.full.default, ([300, 400, 50], 3.0), name="large"),
    OpRow(
        aten.full.default,
        (X,),
        call=lambda x: aten.full.default([2, 2], x.shape[2]),
        dynamic=True,
        name="of_a_size",
    ),
    OpRow(
        aten.full.default,
        ([2], 1.0),
        {"pin_memory": True},
        name="pinned",
        rejected="pin_memory=True",
    ),
    like(aten.zeros.default),
    like(aten.zeros.default, dtype=torch.bool, name="bool"),
    OpRow(aten.zeros.default, ([0, 4],), rejected="is empty", name="empty"),
    like(aten.ones.default),
    like(aten.ones.default, dtype=torch.int32, name="int32"),
    OpRow(
        aten.ones.default,
        ([2],),
        {"dtype": torch.float64},
        name="float64",
        rejected="torch.float64",
    ),
    OpRow(aten.full_like.default, (X, 1.5), dynamic=True),
    OpRow(aten.full_like.default, (T((3,), torch.int64), 2.7), name="truncated"),
    OpRow(aten.full_like.default, (X, 1), {"dtype": torch.bool}, dynamic=True, name="bool"),
    OpRow(
        aten.full_like.default,
        (T((2, 3, 4, 5)), 1.5),
        {"memory_format": torch.channels_last},
        name="channels_last",
    ),
    OpRow(aten.zeros_like.default, (X,), dynamic=True),
    OpRow(aten.zeros_like.default, (T((), torch.int32),), name="0d"),
    OpRow(aten.ones_like.default, (X,), dynamic=True),
    OpRow(aten.ones_like.default, (X,), {"dtype": torch.bfloat16}, dynamic=True, name="bf16"),
    new(aten.new_full.default, 4),
    new(aten.new_full.default, 4, dtype=torch.int64, name="int64"),
    new(aten.new_zeros.default),
    new(aten.new_ones.default, dtype=torch.bool),
    OpRow(aten.fill.Scalar, (X, 3), dynamic=True),
    OpRow(aten.fill.Scalar, (T((3,), torch.bool), 2), name="bool"),
    OpRow(aten.scalar_tensor.default, (2.5,)),
    OpRow(aten.scalar_tensor.default, (2,), {"dtype": torch.int32}, name="int32"),
    OpRow(aten.arange.default, (7,), name="static"),
    OpRow(aten.arange.default, (2.5,), name="float"),
    OpRow(aten.arange.default, (5,), {"dtype": torch.float16}, name="fp16"),
    OpRow(
        aten.arange.default,
        (X,),
        call=lambda x: aten.arange.default(x.shape[2]),
        dynamic=True,
        name="of_a_size",
    ),
    OpRow(
        aten.arange.default,
        (X,),
        call=lambda x: aten.arange.default(x.shape[2], dtype=torch.float16),
        dynamic=True,
        name="fp16_of_a_size",
    ),
    OpRow(aten.arange.start, (2, 7), name="static"),
    OpRow(aten.arange.start, (0.5, 4), name="float"),
    OpRow(
        aten.arange.start,
        (X,),
        call=lambda x: aten.arange.start(x.shape[0], x.shape[2] + 3, dtype=torch.int32),
        dynamic=True,
        name="of_sizes",
    ),
    OpRow(aten.arange.start_step, (7, -4, -3), name="backwards"),
    OpRow(aten.arange.start_step, (0, 1, 0.1), name="float"),
    OpRow(aten.arange.start_step, (0.5, 6.7, 1.5), {"dtype": torch.int64}, name="truncated"),
    OpRow(
        aten.arange.start_step,
        (T((5, 6)),),
        call=lambda x: aten.arange.start_step(0, x.shape[1] * 8, 8, dtype=torch.float32),
        dynamic=True,
        name="anchor_grid",
    ),
    OpRow(
        aten.arange.start_step,
        (T((5, 6)),),
        call=lambda x: aten.arange.start_step(3, x.shape[1] * 8, 2),
        dynamic=True,
        name="int64_of_a_size",
    ),
]
