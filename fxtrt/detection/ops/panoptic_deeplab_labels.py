"""Define `fxtrt::panoptic_deeplab_labels`, by which Panoptic-DeepLab labels each pixel."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["PACKAGES", "VOID", "labels"]

PACKAGES = ("detectron2.projects.panoptic_deeplab", "panoptic_deeplab")
"""The project's names: as a part of an installed Detectron2, and with its folder on the path."""
VOID = -1
"""The label of pixels that belong to no segment."""


@custom_op("fxtrt::panoptic_deeplab_labels", mutates_args=())
def labels(
    semantic: Tensor,
    centers: Tensor,
    offsets: Tensor,
    things: list[int],
    divisor: int,
    stuff_area: int,
    threshold: float,
    kernel: int,
    most: int,
) -> Tensor:
    """Call the project's `get_panoptic_segmentation`, which finds each instance's class by a vote.

    Args:
        semantic: (1, H, W), int64.
        centers: (1, H, W).
        offsets: (2, H, W).

    Returns:
        (1, H, W), int64: the class times `divisor`, plus the instance's number; or `VOID`.
    """
    settings = (things, divisor, stuff_area, VOID, threshold, kernel, most)
    find = _post_processing().get_panoptic_segmentation
    panoptic: Tensor = find(semantic, centers, offsets, *settings)[0]
    return panoptic


@labels.register_fake
def _(
    semantic: Tensor,
    centers: Tensor,
    offsets: Tensor,
    things: list[int],
    divisor: int,
    stuff_area: int,
    threshold: float,
    kernel: int,
    most: int,
) -> Tensor:
    return torch.empty_like(semantic)


def _post_processing() -> Any:
    names = (f"{package}.post_processing" for package in PACKAGES)
    return next(sys.modules[name] for name in names if name in sys.modules)


explain("fxtrt::panoptic_deeplab_labels", "it votes for the class of instance after instance")
