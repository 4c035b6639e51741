"""Lay a level's cell anchors over its grid, as the anchor generators of both libraries do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["grid_anchors"]


def grid_anchors(
    cell_anchors: Tensor, grid: Sequence[int], strides: Sequence[int], offset: float
) -> Tensor:
    """Return the anchors of a level, row by row.

    The shifts are computed in float64 and rounded once; torchvision's are integers, and
    Detectron2's half integers at most, which float32 holds exactly.

    Args:
        cell_anchors: (A, 4), the anchors of a cell around its origin.
        grid: the height and the width of the level, in cells.
        strides: the vertical and the horizontal distance of two cells, in pixels.
        offset: where the first cell's origin lies, as a multiple of the strides.

    Returns:
        (height * width * A, 4).
    """
    y, x = (
        (
            stride * torch.arange(cells, dtype=torch.float64, device=cell_anchors.device)
            + offset * stride
        ).float()
        for cells, stride in zip(grid, strides, strict=True)
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack((x, y, x, y), dim=-1).reshape(-1, 1, 4)
    return (shifts + cell_anchors).view(-1, 4)
