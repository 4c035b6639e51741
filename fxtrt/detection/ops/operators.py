"""Functions of torchvision that branch or loop over data, each as one operator of a graph.

Importing this module defines the operators, which are torchvision's own functions inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection import roi_heads
from torchvision.ops import boxes as box_ops

from ...registry import explain
from ..symbolic_len import selection_of

__all__ = ["batched_nms", "heatmaps_to_keypoints", "paste_masks_in_image"]

# Bound now: during capture the names in torchvision are those of the functions below.
_batched_nms = box_ops.batched_nms
_heatmaps_to_keypoints = roi_heads.heatmaps_to_keypoints
_paste_masks_in_image = roi_heads.paste_masks_in_image


@torch.library.custom_op("fxtrt::batched_nms", mutates_args=())
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """`torchvision.ops.batched_nms`, which suppresses in one of two ways that round differently.

    Args:
        boxes: (N, 4), floating point; scores: (N,); idxs: (N,), the category of each.

    Returns:
        (K,), int64: what stays, by falling score.
    """
    return _batched_nms(boxes, scores, idxs, iou_threshold)  # type: ignore[no-any-return]  # untyped


@batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return selection_of(boxes)


@torch.library.custom_op("fxtrt::paste_masks_in_image", mutates_args=())
def paste_masks_in_image(
    masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1
) -> Tensor:
    """`paste_masks_in_image` of torchvision's Mask R-CNN: a loop over the detections.

    Args:
        masks: (N, 1, M, M), probabilities; boxes: (N, 4), pixels; img_shape: height and width.

    Returns:
        (N, 1, height, width), of the dtype of `masks`.
    """
    return _paste_masks_in_image(masks, boxes, tuple(img_shape), padding)  # type: ignore[no-any-return]  # untyped


@paste_masks_in_image.register_fake
def _(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    return masks.new_empty((masks.shape[0], 1, *img_shape))


@torch.library.custom_op("fxtrt::heatmaps_to_keypoints", mutates_args=())
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    """`heatmaps_to_keypoints` of torchvision's Keypoint R-CNN: resizes each map to its box.

    Args:
        maps: (N, K, H, W), scores; rois: (N, 4), pixels.

    Returns:
        (N, K, 3) positions and visibilities, and (N, K) scores; float32.
    """
    return _heatmaps_to_keypoints(maps, rois)  # type: ignore[no-any-return]  # untyped


@heatmaps_to_keypoints.register_fake
def _(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor]:
    count, keypoints = rois.shape[0], maps.shape[1]
    positions = maps.new_empty((count, 3, keypoints), dtype=torch.float32).permute(0, 2, 1)
    return positions, maps.new_empty((count, keypoints), dtype=torch.float32)


explain(
    "fxtrt::batched_nms",
    "how it suppresses depends on the number of boxes",
)
explain("fxtrt::paste_masks_in_image", "it pastes mask after mask, each into its own box")
explain("fxtrt::heatmaps_to_keypoints", "it resizes each map to the size of its box")
