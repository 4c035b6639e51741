"""Rows of converters/embedding_bag.py."""

from __future__ import annotations

from typing import Any

import torch

from .row import OpRow, T

aten = torch.ops.aten
TARGETS = (aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
SUM, MEAN, MAX = 0, 1, 2

TABLE = T((9, 4))
INDICES = T((6,), torch.int64, low=0, high=9)
THREES = T((2,), torch.int64, values=(0, 3), weight=True)
TWOS_AND_LAST = T((4,), torch.int64, values=(0, 2, 4, 6), weight=True)
UNEVEN = T((2,), torch.int64, values=(0, 2), weight=True)
INPUT = T((2,), torch.int64, values=(0, 3))


def _rows(target: Any) -> list[OpRow]:
    def first(*args: Any) -> torch.Tensor:
        result: torch.Tensor = target(*args)[0]
        return result

    def row(*args: Any, **kwargs: Any) -> OpRow:
        return OpRow(target, (TABLE, INDICES, *args), call=first, float16=False, **kwargs)

    half = T((9, 4), torch.float16)
    return [
        row(THREES, False, SUM, name="sum"),
        row(THREES, False, MEAN, name="mean"),
        row(THREES, False, MAX, name="max"),
        row(TWOS_AND_LAST, False, SUM, False, None, True, name="last"),
        row(THREES, False, SUM, False, T((6,)), name="weighted"),
        OpRow(target, (half, INDICES, THREES), call=first, name="half", tolerance=2e-3),
        row(THREES, False, SUM, False, None, False, 0, name="pad", rejected="padding_idx=0"),
        row(UNEVEN, False, SUM, name="uneven", rejected="of one length"),
        row(INPUT, False, SUM, name="input", rejected="of one length"),
        OpRow(target, (TABLE, INDICES, THREES), name="all", rejected="(0,) is empty"),
    ]


ROWS = [row for target in TARGETS for row in _rows(target)]
