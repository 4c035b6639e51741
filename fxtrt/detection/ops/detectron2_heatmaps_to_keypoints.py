"""Define `fxtrt::detectron2_heatmaps_to_keypoints`, by which Detectron2 finds keypoints."""

from __future__ import annotations

from detectron2.structures import keypoints
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["heatmaps_to_keypoints"]

_heatmaps_to_keypoints = keypoints.heatmaps_to_keypoints
"""Detectron2's own function, read at import: during capture the operator below replaces it."""


@custom_op("fxtrt::detectron2_heatmaps_to_keypoints", mutates_args=())
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """Call Detectron2's `heatmaps_to_keypoints`, which resizes each map to its box.

    Args:
        maps: (N, K, H, W), logits.
        rois: (N, 4), pixels.

    Returns:
        (N, K, 4): x, y, logit and score; of the dtype of `maps`.
    """
    return _heatmaps_to_keypoints(maps, rois)  # type: ignore[no-any-return]  # untyped


@heatmaps_to_keypoints.register_fake
def _(maps: Tensor, rois: Tensor) -> Tensor:
    return maps.new_empty((rois.shape[0], maps.shape[1], 4))


explain("fxtrt::detectron2_heatmaps_to_keypoints", "it resizes each map to the size of its box")
