"""Rows of converters/deform_conv.py; none where torchvision is not installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from .row import OpRow, T, W

ROWS: list[OpRow] = []

X = T((2, 4, 7, 9))
OFFSET = T((2, 18, 7, 9), low=-3.0, high=3.0)
MASK = T((2, 9, 7, 9), low=0.0, high=2.0)
NO_MASK = T((2, 1))
WEIGHT, BIAS = W(6, 4, 3, 3), W(6)
PLAIN = (1, 1, 1, 1, 1, 1, 1, 1)
"""Strides, paddings and dilations of rows and columns; groups; groups of offsets."""


def _row(
    name: str,
    options: tuple[int, ...] = PLAIN,
    x: T = X,
    weight: T = WEIGHT,
    offset: T = OFFSET,
    mask: T = NO_MASK,
    bias: T = BIAS,
    **row: Any,
) -> OpRow:
    target = torch.ops.torchvision.deform_conv2d.default
    args = (x, weight, offset, mask, bias, *options, len(mask.shape) == 4)
    return OpRow(target, args, name=name, tolerance=1e-4, float16=False, **row)


if importlib.util.find_spec("torchvision"):
    import torchvision  # noqa: F401  # defines the operator

    ROWS += [
        _row("plain", dynamic=True),
        _row("modulated", mask=MASK, dynamic=True),
        # A kernel of 2x3, steps that differ between rows and columns, two groups of both kinds.
        _row(
            "groups",
            (2, 1, 0, 2, 1, 2, 2, 2),
            weight=W(6, 2, 2, 3),
            offset=T((2, 24, 3, 9), low=-3.0, high=3.0),
            mask=T((2, 12, 3, 9), low=0.0, high=2.0),
            dynamic=True,
        ),
        # Beyond the edge by less than a pixel counts in part.
        _row("edges", offset=T((2, 18, 7, 9), low=-12.0, high=12.0)),
        _row(
            "point",
            (1, 1, 0, 0, 1, 1, 1, 1),
            x=T((1, 3, 1, 1)),
            weight=W(2, 3, 1, 1),
            offset=T((1, 2, 1, 1), low=-0.9, high=0.9),
            mask=T((1, 1)),
            bias=W(2),
        ),
        _row("inputs", weight=T((6, 4, 3, 3)), bias=T((6,))),
        _row(
            "fp16",
            x=T((2, 4, 7, 9), torch.float16),
            weight=T((6, 4, 3, 3), torch.float16),
            offset=T((2, 18, 7, 9), torch.float16),
            mask=T((2, 9, 7, 9), torch.float16),
            bias=T((6,), torch.float16),
            rejected="torch.float16",
        ),
        _row("kernel", weight=T((6, 4, 3, 3)), dynamic=True, rejected="a kernel size or step is"),
    ]
