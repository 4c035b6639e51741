"""Describe the anchors of torchvision's `AnchorGenerator` to operators that make them inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator

from ..host_steps import unchanged

__all__ = ["cell_anchors_of", "strides_of", "why_no_anchors"]


def cell_anchors_of(generator: Any, device: torch.device) -> list[Tensor]:
    """Return (A, 4) for each level. The generator itself moves its own at the first call only."""
    return [cells.to(device, torch.float32) for cells in generator.cell_anchors]


def strides_of(features: Sequence[Tensor], images: Tensor) -> list[Any]:
    """Return the vertical and the horizontal stride of each level, one after the other."""
    sides = images.shape[2:]
    return [
        side // cells
        for level in features
        for side, cells in zip(sides, level.shape[2:], strict=True)
    ]


def why_no_anchors(generator: Any, levels: int) -> str | None:
    """Return why a core cannot make the anchors of a generator, or None."""
    if not unchanged(generator, AnchorGenerator, "forward", "grid_anchors", "set_cell_anchors"):
        return f"{type(generator).__name__} makes anchors in a way of its own"
    if len(generator.cell_anchors) != levels:
        return f"it has anchors for {len(generator.cell_anchors)} of {levels} levels"
    return None
