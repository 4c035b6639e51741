"""Rows of converters/pooling.py."""

from __future__ import annotations

from typing import Any

import torch

from .row import OpRow, T

aten = torch.ops.aten

LINE = T((2, 3, 11))
X = T((2, 3, 11, 14))
VOLUME = T((1, 2, 7, 6, 9))
HALF = T((2, 3, 11, 14), torch.float16)
BRAIN = T((2, 3, 11, 14), torch.bfloat16)


def row(target: Any, *args: Any, **options: Any) -> OpRow:
    return OpRow(target, args, **options)


def first(target: Any, *args: Any, **options: Any) -> OpRow:
    """Return a row for the first output of an operator with several."""
    return OpRow(target, args, call=lambda *args: target(*args)[0], **options)


MAX = [
    row(aten.max_pool2d.default, X, [3, 3], [2, 2], [1, 1], dynamic=True, name="k3s2p1"),
    row(aten.max_pool2d.default, X, [2, 2], dynamic=True, name="stride_is_kernel"),
    row(aten.max_pool2d.default, X, [1, 1], [2, 2], [0, 0], dynamic=True, name="k1s2"),
    row(aten.max_pool2d.default, X, [3], [2], [1], name="one_number"),
    row(aten.max_pool2d.default, X, [3, 2], [1, 2], [1, 0], name="uneven"),
    row(aten.max_pool2d.default, X, [3, 3], [2, 2], [0, 0], [1, 1], True, name="ceil"),
    row(
        *(aten.max_pool2d.default, X, [3, 3], [2, 2], [1, 1], [1, 1], True),
        dynamic=True,
        name="ceil_k3s2p1",
    ),
    # Rounding up gives ceil((11 + 2 - 2) / 2) + 1 = 7 rows; the last starts at 12, behind 11 + 1.
    row(
        *(aten.max_pool2d.default, X, [2, 2], [2, 2], [1, 1], [1, 1], True),
        name="ceil_drops_a_window",
    ),
    row(
        *(aten.max_pool2d.default, T((1, 1, 6, 8)), [1, 1], [3, 3], [0, 0], [1, 1], True),
        name="ceil_k1s3",
    ),
    row(aten.max_pool2d.default, T((3, 11, 14)), [3, 3], [2, 2], name="unbatched", dynamic=True),
    row(aten.max_pool2d.default, HALF, [3, 3], [2, 2], [1, 1], name="fp16"),
    row(aten.max_pool2d.default, BRAIN, [3, 3], [2, 2], [1, 1], name="bf16"),
    row(
        *(aten.max_pool2d.default, X, [3, 3], [1, 1], [0, 0], [2, 1]),
        name="dilated",
        rejected="dilation is (2, 1)",
    ),
    row(
        *(aten.max_pool2d.default, X, [2, 2], [2, 2], [1, 1], [1, 1], True),
        dynamic=True,
        name="ceil_drops_at_some_sizes",
        rejected="drops windows at some of the dynamic sizes",
    ),
    row(
        *(aten.max_pool2d.default, T((1, 1, 4, 4), torch.int64), [2, 2]),
        name="int64",
        rejected="torch.int64",
    ),
    first(aten.max_pool2d_with_indices.default, X, [3, 3], [2, 2], [1, 1], dynamic=True),
    row(
        *(aten.max_pool2d_with_indices.default, X, [3, 3]),
        name="indices",
        rejected="output 1 is used",
    ),
    row(aten.max_pool1d.default, LINE, [3], [3], [1], dynamic=True),
    row(aten.max_pool1d.default, LINE, [4], [3], [2], [1], True, name="ceil"),
    row(aten.max_pool1d.default, T((3, 11)), [3], [2], name="unbatched"),
    row(aten.max_pool3d.default, VOLUME, [3, 2, 3], [2, 2, 2], [1, 0, 1], dynamic=True),
    row(aten.max_pool3d.default, VOLUME, [2], [2], [0], [1], True, name="ceil"),
    row(aten.max_pool3d.default, T((2, 7, 6, 9)), [2], name="unbatched"),
    first(aten.max_pool3d_with_indices.default, VOLUME, [2, 2, 2]),
]

AVERAGE = [
    row(aten.avg_pool2d.default, X, [3, 3], [2, 2], [1, 1], dynamic=True, name="k3s2p1"),
    row(
        *(aten.avg_pool2d.default, X, [3, 3], [2, 2], [1, 1], False, False),
        dynamic=True,
        name="exclude_pad",
    ),
    row(aten.avg_pool2d.default, X, [3, 3], [2, 2], [0, 0], True, dynamic=True, name="ceil"),
    row(
        *(aten.avg_pool2d.default, T((1, 2, 10, 12)), [3, 3], [2, 2], [1, 1], True, False),
        dynamic=True,
        name="ceil_exclude_pad",
    ),
    row(
        *(aten.avg_pool2d.default, X, [3, 4], [2, 2], [1, 1], True, True),
        name="ceil_that_fits",
    ),
    row(
        *(aten.avg_pool2d.default, T((1, 2, 10, 12)), [3, 3], [2, 2], [1, 1], True, True),
        name="ceil_include_pad",
        rejected="count_include_pad=True with ceil_mode=True",
    ),
    row(
        *(aten.avg_pool2d.default, X, [3, 3], [2, 2], [1, 1], False, True, 5),
        dynamic=True,
        name="divisor",
    ),
    row(
        *(aten.avg_pool2d.default, X, [3, 3], [2, 2], [0, 0], True, False, 5),
        name="ceil_divisor",
    ),
    row(
        *(aten.avg_pool2d.default, X, [3, 3], [2, 2], [0, 0], True, False, 5),
        dynamic=True,
        name="ceil_divisor_dynamic",
        rejected="divisor_override=5 with ceil_mode=True and dynamic sizes",
    ),
    row(aten.avg_pool2d.default, T((3, 11, 14)), [2, 2], name="unbatched"),
    row(aten.avg_pool2d.default, HALF, [3, 3], [2, 2], [1, 1], name="fp16", tolerance=2e-3),
    row(aten.avg_pool2d.default, BRAIN, [2, 2], name="bf16", tolerance=1e-2),
    row(aten.avg_pool1d.default, LINE, [3], [3], [1], dynamic=True),
    row(aten.avg_pool1d.default, LINE, [3], [2], [1], False, False, name="exclude_pad"),
    row(aten.avg_pool1d.default, LINE, [4], [3], [0], True, name="ceil"),
    row(aten.avg_pool3d.default, VOLUME, [2, 2, 3], [2, 2, 2], [1, 1, 1], dynamic=True),
    row(aten.avg_pool3d.default, VOLUME, [3], [2], [1], False, False, name="exclude_pad"),
    row(aten.avg_pool3d.default, VOLUME, [3], [2], [0], True, True, 7, name="divisor"),
]

ROWS = MAX + AVERAGE
