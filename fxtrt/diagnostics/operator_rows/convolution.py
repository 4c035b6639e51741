"""Rows of converters/convolution.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .row import OpRow, T, W

aten = torch.ops.aten


def row(
    x: T,
    weight: T,
    bias: T | None = None,
    *,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    transposed: bool = False,
    output_padding: Sequence[int] = (0,),
    groups: int = 1,
    **options: Any,
) -> OpRow:
    """A convolution; one number stands for all spatial dimensions."""
    spatial = len(x.shape) - 2
    steps = [
        list(v) * (spatial if len(v) == 1 else 1)
        for v in (stride, padding, dilation, output_padding)
    ]
    args = (x, weight, bias, *steps[:3], transposed, steps[3], groups)
    return OpRow(aten.convolution.default, args, **options)


def weight(*shape: int, dtype: torch.dtype) -> T:
    return T(shape, dtype, weight=True)


def dynamic(x: T, weight: T, **options: Any) -> OpRow:
    """A row for symbolic batch and sizes too; the weight fixes the channels."""
    return row(x, weight, dynamic=True, **options)


X = T((2, 4, 11, 9))
LINE = T((2, 4, 15))
VOLUME = T((1, 2, 5, 6, 7))
HALF = torch.float16
BRAIN = torch.bfloat16

FORWARD = [
    dynamic(T((2, 3, 23, 29)), W(8, 3, 7, 7), stride=(2,), padding=(3,), name="k7s2p3"),
    dynamic(X, W(6, 4, 3, 3), bias=W(6), padding=(1,), name="k3s1p1"),
    dynamic(X, W(6, 4, 1, 1), stride=(2,), name="k1s2"),
    dynamic(X, W(6, 4, 3, 3), padding=(2,), dilation=(2,), name="d2"),
    row(X, W(6, 2, 3, 3), W(6), groups=2, name="grouped"),
    row(X, W(8, 1, 3, 3), padding=(1,), groups=4, name="depthwise"),
    row(X, W(6, 4, 3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 3), name="uneven"),
    row(X, W(6, 4, 2, 2), padding=(5,), name="padding_above_kernel"),
    dynamic(LINE, W(6, 4, 3), bias=W(6), stride=(2,), padding=(1,), name="1d"),
    row(LINE, W(4, 1, 3), dilation=(2,), groups=4, name="1d_depthwise_d2"),
    dynamic(VOLUME, W(4, 2, 3, 3, 3), bias=W(4), padding=(1,), name="3d"),
    row(VOLUME, W(4, 2, 1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), name="3d_uneven"),
    row(X, T((6, 4, 3, 3)), T((6,)), padding=(1,), name="weight_input"),
    row(LINE, T((6, 4, 3)), None, name="1d_weight_input"),
    row(X, W(6, 4, 3, 3), T((6,)), name="bias_input"),
    row(X, T((6, 4, 3, 3)), W(6), name="weight_input_bias"),
]

TRANSPOSED = [
    dynamic(X, W(4, 5, 2, 2), bias=W(5), stride=(2,), transposed=True, name="t_k2s2"),
    dynamic(X, W(4, 5, 4, 4), stride=(2,), padding=(1,), transposed=True, name="t_k4s2p1"),
    row(
        *(X, W(4, 5, 3, 3), W(5)),
        stride=(2,),
        padding=(1,),
        output_padding=(1,),
        transposed=True,
        name="t_output_padding",
    ),
    row(X, W(4, 3, 3, 3), groups=2, transposed=True, name="t_grouped"),
    row(X, W(4, 1, 4, 4), stride=(2,), padding=(1,), groups=4, transposed=True, name="t_depthwise"),
    row(X, W(4, 5, 3, 3), dilation=(2,), transposed=True, name="t_d2"),
    row(
        *(LINE, W(4, 5, 4), W(5)),
        stride=(2,),
        padding=(1,),
        output_padding=(1,),
        transposed=True,
        name="t_1d",
    ),
    row(VOLUME, W(2, 3, 2, 2, 2), W(3), stride=(2,), transposed=True, name="t_3d"),
    row(X, T((4, 5, 2, 2)), T((5,)), stride=(2,), transposed=True, name="t_weight_input"),
]

HALVES = [
    row(
        *(T((2, 4, 8, 8), dtype), weight(6, 4, 3, 3, dtype=dtype), weight(6, dtype=dtype)),
        padding=(1,),
        name=f"{name}",
        tolerance=tolerance,
    )
    for dtype, name, tolerance in ((HALF, "fp16", 1e-2), (BRAIN, "bf16", 8e-2))
] + [
    row(
        *(T((2, 4, 8, 8), dtype), weight(4, 6, 2, 2, dtype=dtype), weight(6, dtype=dtype)),
        stride=(2,),
        transposed=True,
        name=f"t_{name}",
        tolerance=tolerance,
    )
    for dtype, name, tolerance in ((HALF, "fp16", 1e-2), (BRAIN, "bf16", 8e-2))
]

DECLINED = [
    row(
        *(X, W(4, 5, 3, 3)),
        stride=(2,),
        dilation=(2,),
        transposed=True,
        name="t_s2_d2",
        rejected="stride (2, 2) and dilation (2, 2)",
    ),
    row(
        *(X, W(4, 5, 3, 3)),
        stride=(2,),
        output_padding=(1,),
        transposed=True,
        name="t_output_padding_above_padding",
        rejected="output_padding (1, 1) is more than padding (0, 0)",
    ),
    row(
        *(T((1, 2, 4, 4), torch.int64), T((3, 2, 1, 1), torch.int64)),
        name="int64",
        rejected="torch.int64",
    ),
]

ROWS = FORWARD + TRANSPOSED + HALVES + DECLINED
