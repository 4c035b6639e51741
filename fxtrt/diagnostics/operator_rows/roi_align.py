"""Rows of converters/roi_align.py; none where torchvision is not installed."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from .row import OpRow, T

ROWS: list[OpRow] = []

X = T((2, 3, 12, 16))
# Image, x1, y1, x2, y2: inside, across each edge, outside, a point, inverted, a line, on -1.
ROIS = T(
    (9, 5),
    values=(
        (0, 2.0, 1.5, 9.3, 7.9),
        (1, -6.0, -4.0, 5.0, 6.0),
        (1, 10.2, 8.1, 24.0, 20.0),
        (0, 40.0, 40.0, 60.0, 60.0),
        (0, 3.0, 3.0, 3.0, 3.0),
        (1, 9.0, 8.0, 4.0, 2.0),
        (1, 2.0, 5.0, 9.0, 5.0),
        (0, -1.0, -1.0, 15.0, 11.0),
        (1, 0.0, 0.0, 16.0, 12.0),
    ),
)


def _row(*options: Any, dynamic: bool = False, rejected: str | None = None, **types: Any) -> OpRow:
    tensors = (types.get("x", X), types.get("rois", ROIS))
    name = "-".join(map(str, (*options, *types)))
    target = torch.ops.torchvision.roi_align.default
    return OpRow(target, (*tensors, *options), dynamic=dynamic, rejected=rejected, name=name)


if importlib.util.find_spec("torchvision"):
    import torchvision  # noqa: F401  # defines the operator

    ROWS += [
        _row(1.0, 4, 5, 2, True, dynamic=True),
        _row(1.0, 4, 5, 2, False, dynamic=True),
        _row(0.5, 7, 7, 1, True),
        _row(0.25, 2, 3, 3, False, dynamic=True),
        _row(1.0, 1, 1, 2, True),
        _row(1.0, 4, 5, 2, True, x=T((1, 1, 1, 1)), rois=T((1, 5), values=(0, -0.5, 0, 2, 1))),
        _row(1.0, 4, 5, 0, True, dynamic=True),
        _row(1.0, 4, 5, 0, False, dynamic=True),
        _row(1.0, 4, 5, -1, False),
        _row(0.5, 2, 3, -1, True, dynamic=True),
        _row(0.25, 7, 7, 0, True),
        _row(
            1.0,
            4,
            5,
            2,
            True,
            x=T((2, 3, 12, 16), torch.float16),
            rois=T((3, 5), torch.float16, 0.0, 1.0),
            rejected="torch.float16",
        ),
    ]
