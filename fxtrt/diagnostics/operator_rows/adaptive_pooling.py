"""Rows of converters/adaptive_pooling.py."""

from __future__ import annotations

from typing import Any

import torch

from .row import OpRow, T

aten = torch.ops.aten

X = T((2, 3, 12, 14))


def row(target: Any, *args: Any, **options: Any) -> OpRow:
    return OpRow(target, args, **options)


def first(target: Any, *args: Any, **options: Any) -> OpRow:
    """Return a row for the first output of an operator with several."""
    return OpRow(target, args, call=lambda *args: target(*args)[0], **options)


ROWS = [
    row(aten.adaptive_avg_pool2d.default, X, [1, 1], dynamic=True, name="1x1"),
    row(aten.adaptive_avg_pool2d.default, X, [6, 7], name="divisible"),
    row(aten.adaptive_avg_pool2d.default, X, [7, 5], dynamic=True, name="matrices"),
    row(aten.adaptive_avg_pool2d.default, X, [12, 5], dynamic=True, name="columns_only"),
    row(aten.adaptive_avg_pool2d.default, X, [24, 20], dynamic=True, name="larger"),
    row(aten.adaptive_avg_pool2d.default, X, [12, 14], name="same"),
    row(
        aten.adaptive_avg_pool2d.default,
        X,
        call=lambda x: aten.adaptive_avg_pool2d.default(x, [x.shape[2], 1]),
        dynamic=True,
        name="rows_kept",
    ),
    row(
        *(aten.adaptive_avg_pool2d.default, X),
        call=lambda x: aten.adaptive_avg_pool2d.default(x, [x.shape[3], x.shape[2]]),
        dynamic=True,
        name="dynamic_output",
        rejected="is a dynamic size",
    ),
    row(aten.adaptive_avg_pool2d.default, T((3, 12, 14)), [4, 5], dynamic=True, name="unbatched"),
    row(aten.adaptive_avg_pool2d.default, T((3, 12, 14)), [4, 7], name="unbatched_divisible"),
    row(
        *(aten.adaptive_avg_pool2d.default, T((2, 3, 12, 14), torch.float16), [7, 5]),
        name="fp16",
        tolerance=2e-3,
    ),
    row(
        *(aten.adaptive_avg_pool2d.default, T((2, 3, 12, 14), torch.bfloat16), [1, 1]),
        name="bf16",
        tolerance=1e-2,
    ),
    row(aten._adaptive_avg_pool2d.default, X, [7, 7], name="matrices"),
    row(aten.adaptive_avg_pool1d.default, T((2, 3, 13)), [5], dynamic=True, name="matrix"),
    row(aten.adaptive_avg_pool1d.default, T((2, 3, 12)), [4], name="divisible"),
    row(aten.adaptive_avg_pool1d.default, T((2, 3, 12)), [1], dynamic=True),
    row(aten.adaptive_avg_pool3d.default, T((1, 2, 4, 6, 8)), [1, 1, 1], dynamic=True),
    row(aten.adaptive_avg_pool3d.default, T((1, 2, 4, 6, 8)), [2, 3, 4], name="divisible"),
    row(
        *(aten.adaptive_avg_pool3d.default, T((1, 2, 4, 6, 8)), [3, 3, 4]),
        name="uneven",
        rejected="(4, 6, 8) is not known to be a multiple of (3, 3, 4)",
    ),
    row(aten._adaptive_avg_pool3d.default, T((1, 2, 4, 6, 8)), [2, 2, 2]),
    first(aten.adaptive_max_pool2d.default, X, [6, 7], name="divisible"),
    first(aten.adaptive_max_pool2d.default, X, [1, 1], dynamic=True),
    first(
        *(aten.adaptive_max_pool2d.default, X, [5, 7]),
        name="uneven",
        rejected="(12, 14) is not known to be a multiple of (5, 7)",
    ),
    row(
        *(aten.adaptive_max_pool2d.default, X, [6, 7]),
        name="indices",
        rejected="output 1 is used",
    ),
]
