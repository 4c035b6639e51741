"""Rows of converters/nms.py; none where torchvision is not installed."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import torch

from .row import OpRow, T, V

ROWS: list[OpRow] = []

# The second overlaps the first by 9/11, the fourth by 2/5; the fifth touches the third; the last
# has no area.
BOXES = T(
    (6, 4),
    values=(
        (0.0, 0.0, 10.0, 10.0),
        (0.0, 1.0, 10.0, 11.0),
        (20.0, 20.0, 30.0, 30.0),
        (0.0, 0.0, 10.0, 4.0),
        (30.0, 20.0, 40.0, 30.0),
        (5.0, 5.0, 5.0, 5.0),
    ),
)
SCORES = V(0.9, 0.8, 0.7, 0.95, -2.0, 0.1)


def _row(iou: float, name: str, boxes: T = BOXES, scores: T = SCORES, **options: Any) -> OpRow:
    target = torch.ops.torchvision.nms.default
    return OpRow(target, (boxes, scores, iou), name=name, float16=False, **options)


if importlib.util.find_spec("torchvision"):
    import torchvision  # noqa: F401  # defines the operator

    # 3 / 10 in float32 is above 0.3, which torchvision compares with in float64.
    TENTHS = T((2, 4), values=((0.0, 0.0, 10.0, 1.0), (0.0, 0.0, 3.0, 1.0)))
    ROWS += [
        _row(0.5, "half"),
        _row(0.3, "low"),
        _row(0.0, "zero"),
        _row(0.9, "high"),
        _row(1.0, "one"),
        _row(0.3, "exactly", TENTHS, V(0.2, 0.1)),
        _row(0.5, "on-it", T((2, 4), values=((0, 0, 2, 1), (0, 0, 1, 1))), V(0.2, 0.1)),
        _row(0.5, "infinite", scores=V(0.9, -math.inf, 0.7, math.inf, -2.0, 0.1)),
        _row(0.5, "one-box", T((1, 4), values=(0, 0, 1, 1)), V(0.5)),
        _row(1.5, "above", rejected="iou_threshold=1.5"),
        _row(0.5, "many", T((5001, 4)), T((5001,)), rejected="5001 boxes, the layer takes 5000"),
        _row(
            0.5,
            "halves",
            T((3, 4), torch.float16),
            T((3,), torch.float16),
            rejected="torch.float16",
        ),
    ]
