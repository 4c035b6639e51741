"""Rows of converters/resize.py."""

from __future__ import annotations

from typing import Any

import torch

from .row import OpRow, T

aten = torch.ops.aten

LINE = T((2, 3, 7))
X = T((2, 3, 6, 8))
VOLUME = T((1, 2, 3, 4, 5))
HALF = T((2, 3, 6, 8), torch.float16)
BRAIN = T((2, 3, 6, 8), torch.bfloat16)


def row(target: Any, *args: Any, **options: Any) -> OpRow:
    return OpRow(target, args, **options)


def like(target: Any, *rest: Any, other: T, **options: Any) -> OpRow:
    """To the size of another tensor, as a feature pyramid does."""

    def call(x: torch.Tensor, y: torch.Tensor, *rest: Any) -> torch.Tensor:
        return target(x, y.shape[2:], *rest)  # type: ignore[no-any-return]  # an overload's call

    return OpRow(target, (X, other, *rest), call=call, dynamic=True, **options)


def doubled(target: Any, x: T, *rest: Any, **options: Any) -> OpRow:
    """To twice the size, given as sizes."""

    def call(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        return target(x, [2 * size for size in x.shape[2:]], *rest)  # type: ignore[no-any-return]  # an overload's call

    return OpRow(target, (x, *rest), call=call, dynamic=True, **options)


nearest = aten.upsample_nearest2d.vec
exact = aten._upsample_nearest_exact2d.vec
bilinear = aten.upsample_bilinear2d.vec
bicubic = aten.upsample_bicubic2d.vec

NEAREST = [
    row(nearest, X, None, [2.0, 2.0], dynamic=True, name="x2"),
    row(nearest, X, None, [0.5, 3.0], dynamic=True, name="half_and_triple"),
    row(nearest, X, None, [1.7, 1.3], name="uneven_scale"),
    row(nearest, X, [11, 5], None, dynamic=True, name="size"),
    like(nearest, None, other=T((2, 4, 12, 16)), name="like_another"),
    like(nearest, None, other=T((2, 4, 11, 15)), name="like_odd"),
    doubled(nearest, X, None, name="doubled"),
    row(nearest, HALF, None, [2.0, 2.0], name="fp16"),
    row(nearest, BRAIN, None, [2.0, 2.0], name="bf16"),
    row(
        *(nearest, T((1, 1, 4, 4), torch.int32), None, [2.0, 2.0]),
        name="int32",
        rejected="torch.int32 is not",
    ),
    row(
        *(nearest, X, None, [1.3, 2.0]),
        dynamic=True,
        name="uneven_scale_dynamic",
        rejected="scale 1.3 of the dynamic size",
    ),
    row(
        *(nearest, T((1, 1, 50, 4)), None, [2.3, 1.0]),
        name="other_size",
        rejected="scale 2.3 makes 115 of 50, not 114",
    ),
    row(
        *(nearest, T((1, 1, 2, 4)), [82, 4], None),
        name="rounded_index",
        rejected="torch rounds the index of element 41 of 82 from 2 to 0",
    ),
    row(aten.upsample_nearest1d.vec, LINE, None, [2.0], dynamic=True),
    row(aten.upsample_nearest3d.vec, VOLUME, None, [2.0, 1.0, 3.0], dynamic=True),
    doubled(aten.upsample_nearest1d.default, LINE),
    row(aten.upsample_nearest2d.default, X, [15, 20], 2.5, 2.5, name="scales"),
    row(
        *(aten.upsample_nearest2d.default, X, [13, 8], 2.3, None),
        name="mixed",
        rejected="the size 8 is given for one dimension",
    ),
    doubled(aten.upsample_nearest2d.default, X),
    doubled(aten.upsample_nearest3d.default, VOLUME),
]

EXACT = [
    row(exact, X, None, [2.0, 2.0], dynamic=True, name="x2"),
    row(exact, X, None, [0.5, 1.5], dynamic=True, name="half"),
    row(exact, X, [11, 5], None, dynamic=True, name="size"),
    row(aten._upsample_nearest_exact1d.vec, LINE, [10], None),
    row(aten._upsample_nearest_exact3d.vec, VOLUME, [5, 6, 7], None),
    row(aten._upsample_nearest_exact1d.vec, LINE, [3], None, name="fewer"),
    row(aten._upsample_nearest_exact1d.default, LINE, [3], name="fewer"),
    row(aten._upsample_nearest_exact2d.default, X, [2, 3], name="fewer"),
    row(aten._upsample_nearest_exact3d.default, VOLUME, [5, 6, 7], name="uneven"),
    doubled(aten._upsample_nearest_exact1d.default, LINE),
    doubled(aten._upsample_nearest_exact2d.default, X),
    doubled(aten._upsample_nearest_exact3d.default, VOLUME),
]

LINEAR = [
    row(bilinear, X, None, False, [2.0, 2.0], dynamic=True, name="x2"),
    row(bilinear, X, None, True, [2.0, 2.0], dynamic=True, name="x2_corners"),
    row(bilinear, X, [11, 5], False, None, dynamic=True, name="size"),
    row(bilinear, X, [11, 5], True, None, dynamic=True, name="size_corners"),
    row(bilinear, X, [1, 1], True, None, name="one_pixel_corners"),
    row(bilinear, X, [1, 1], False, None, name="one_pixel"),
    row(bilinear, X, None, False, [1.3, 1.7], name="uneven_scale"),
    row(bilinear, X, None, True, [1.3, 1.7], name="uneven_scale_corners"),
    row(bilinear, T((1, 1, 10, 10)), None, False, [1.1, 0.7], name="scale_that_fits"),
    like(bilinear, False, None, other=T((2, 4, 11, 15)), name="like_another"),
    row(bilinear, HALF, None, False, [2.0, 2.0], name="fp16", tolerance=4e-3),
    row(bilinear, BRAIN, None, False, [2.0, 2.0], name="bf16", tolerance=4e-2),
    row(aten.upsample_linear1d.vec, LINE, None, False, [2.0], dynamic=True),
    row(aten.upsample_linear1d.default, LINE, [11], False),
    doubled(aten.upsample_linear1d.default, LINE, True),
    row(aten.upsample_trilinear3d.vec, VOLUME, None, False, [2.0, 1.0, 1.5], dynamic=True),
    row(aten.upsample_trilinear3d.default, VOLUME, [5, 3, 7], True),
]

CUBIC = [
    row(bicubic, X, None, False, [2.0, 2.0], dynamic=True, name="x2", tolerance=1e-4),
    row(bicubic, X, [11, 5], False, None, dynamic=True, name="size", tolerance=1e-4),
    row(bicubic, X, [11, 5], True, None, dynamic=True, name="corners", tolerance=1e-4),
    row(bicubic, X, [1, 1], True, None, name="one_pixel_corners", tolerance=1e-4),
    row(bicubic, X, None, False, [1.3, 1.7], name="uneven_scale", tolerance=1e-4),
]

ROWS = NEAREST + EXACT + LINEAR + CUBIC
