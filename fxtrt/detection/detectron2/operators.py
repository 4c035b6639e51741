"""Functions of Detectron2 that branch or loop over data, each as one operator of a graph.

Importing this module defines the operators, which are Detectron2's own functions inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.layers
import torch
from detectron2.layers import mask_ops
from detectron2.structures import keypoints
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor

from ...registry import explain
from ..symbolic_len import selection_of

__all__ = ["batched_nms", "corner", "heatmaps_to_keypoints", "paste_masks"]

# Bound now: during capture the names in Detectron2 are those of equivalents.
_batched_nms = detectron2.layers.batched_nms
_heatmaps_to_keypoints = keypoints.heatmaps_to_keypoints
_paste_masks = retry_if_cuda_oom(mask_ops.paste_masks_in_image)


@torch.library.custom_op("fxtrt::detectron2_batched_nms", mutates_args=())
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """`detectron2.layers.batched_nms`, whose way depends on the number of boxes.

    Args:
        boxes: (N, 4), floating point; scores: (N,); idxs: (N,), the category of each.

    Returns:
        (K,), int64: what stays, by falling score.
    """
    return _batched_nms(boxes, scores, idxs, iou_threshold)  # type: ignore[no-any-return]  # untyped


@batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return selection_of(boxes)


@torch.library.custom_op("fxtrt::detectron2_paste_masks", mutates_args=())
def paste_masks(
    masks: Tensor, boxes: Tensor, image_shape: Sequence[int], threshold: float
) -> Tensor:
    """`paste_masks_in_image` of Detectron2: a loop over the detections.

    Args:
        masks: (N, M, M), probabilities; boxes: (N, 4), pixels; image_shape: height and width.

    Returns:
        (N, height, width), bool; the original gives uint8 where N is 0, or the threshold below.
    """
    pasted = _paste_masks(masks, boxes, tuple(image_shape), threshold)
    # Out of memory, Detectron2 goes on with the CPU.
    return pasted.to(masks.device, torch.bool)  # type: ignore[no-any-return]  # untyped


@paste_masks.register_fake
def _(masks: Tensor, boxes: Tensor, image_shape: Sequence[int], threshold: float) -> Tensor:
    return masks.new_empty((masks.shape[0], *image_shape), dtype=torch.bool)


@torch.library.custom_op("fxtrt::detectron2_heatmaps_to_keypoints", mutates_args=())
def heatmaps_to_keypoints(maps: Tensor, rois: Tensor) -> Tensor:
    """`heatmaps_to_keypoints` of Detectron2: resizes each map to its box.

    Args:
        maps: (N, K, H, W), logits; rois: (N, 4), pixels.

    Returns:
        (N, K, 4): x, y, logit and score; of the dtype of `maps`.
    """
    return _heatmaps_to_keypoints(maps, rois)  # type: ignore[no-any-return]  # untyped


@heatmaps_to_keypoints.register_fake
def _(maps: Tensor, rois: Tensor) -> Tensor:
    return maps.new_empty((rois.shape[0], maps.shape[1], 4))


@torch.library.custom_op("fxtrt::corner", mutates_args=())
def corner(x: Tensor, height: int, width: int) -> Tensor:
    """The upper left corner of (C, H, W): (C, height, width), in memory of its own.

    While tracing, a slice asks whether it happens to be all of its tensor, as it is where an image
    needs no padding; and the graph would be for such images only, or for all others.
    """
    return x[:, :height, :width].clone(memory_format=torch.contiguous_format)


@corner.register_fake
def _(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty((x.shape[0], height, width))


explain("fxtrt::detectron2_batched_nms", "how it suppresses depends on the number of boxes")
explain("fxtrt::detectron2_paste_masks", "it pastes mask after mask, each into its own box")
explain("fxtrt::detectron2_heatmaps_to_keypoints", "it resizes each map to the size of its box")
explain("fxtrt::corner", "it cuts off the padding, a copy that is worth no engine")
