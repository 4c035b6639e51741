"""Define `fxtrt::heatmaps_to_keypoints`, by which torchvision's Keypoint R-CNN finds keypoints."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op
from torchvision.models.detection import roi_heads

from ...registry import explain

__all__ = ["heatmaps_to_keypoints"]

_heatmaps_to_keypoints = roi_heads.heatmaps_to_keypoints
"""torchvision's own function, read at import: during capture the operator below replaces it."""


@custom_op("fxtrt::heatmaps_to_keypoints", mutates_args=())
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """Call torchvision's `heatmaps_to_keypoints`, which resizes each map to its box.

    Args:
        maps: (N, K, H, W), scores.
        rois: (N, 4), pixels.

    Returns:
        (N, K, 3) positions and visibilities, and (N, K) scores; both float32.
    """
    return _heatmaps_to_keypoints(maps, rois)  # type: ignore[no-any-return]  # untyped


@heatmaps_to_keypoints.register_fake
def _(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    count, keypoints = rois.shape[0], maps.shape[1]
    # The original's result is a transposed view, and a fake has the strides of the real result.
    positions = maps.new_empty((count, 3, keypoints), dtype=torch.float32).permute(0, 2, 1)
    return positions, maps.new_empty((count, keypoints), dtype=torch.float32)


explain("fxtrt::heatmaps_to_keypoints", "it resizes each map to the size of its box")
