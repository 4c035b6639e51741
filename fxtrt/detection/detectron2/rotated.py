"""What Detectron2 does with rotated boxes: equivalents, and kernels as operators of a graph.

Boxes are (N, 5): x and y of the centre, width and height, in pixels, and an angle in degrees.
Importing this module defines the operators, which are Detectron2's own functions inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import detectron2.layers
import torch
from detectron2.structures import RotatedBoxes
from torch import Tensor

from ...graph.sizes import is_static
from ...registry import explain
from ..symbolic_len import selection_of
from .proposals import (
    BoxKind,
    detections_of_image,
    top_proposals,
)
from .structures import register_boxes

__all__ = [
    "batched_nms_rotated",
    "clip_rotated",
    "fast_rcnn_inference_single_image_rotated",
    "find_top_rrpn_proposals",
    "new_rotated_boxes",
    "roi_align_rotated",
]

# Bound now: during capture the names in Detectron2 are those of equivalents.
_batched_nms_rotated = detectron2.layers.batched_nms_rotated
_roi_align_rotated = detectron2.layers.roi_align_rotated


@torch.library.custom_op("fxtrt::detectron2_batched_nms_rotated", mutates_args=())
def batched_nms_rotated(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float
) -> Tensor:
    """`detectron2.layers.batched_nms_rotated`.

    Args:
        boxes: (N, 5); scores: (N,); idxs: (N,), the category of each.

    Returns:
        (K,), int64: what stays, by falling score.
    """
    return _batched_nms_rotated(boxes, scores, idxs, iou_threshold)  # type: ignore[no-any-return]  # untyped


@batched_nms_rotated.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return selection_of(boxes)


@torch.library.custom_op("fxtrt::detectron2_roi_align_rotated", mutates_args=())
def _align(
    input: Tensor, rois: Tensor, rows: int, columns: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    return _roi_align_rotated(input, rois, (rows, columns), spatial_scale, sampling_ratio)  # type: ignore[no-any-return]  # untyped


@_align.register_fake
def _(
    input: Tensor, rois: Tensor, rows: int, columns: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    return input.new_empty((rois.shape[0], input.shape[1], rows, columns))


_WHY = "a kernel of Detectron2's _C without a TensorRT layer"
explain("fxtrt::detectron2_batched_nms_rotated", _WHY)
explain("fxtrt::detectron2_roi_align_rotated", _WHY)


def roi_align_rotated(
    input: Tensor,
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """`detectron2.layers.roi_align_rotated`, as an operator.

    Args:
        input: (images, C, H, W); rois: (N, 6), the number of its image before each box;
        output_size: rows and columns.

    Returns:
        (N, C, rows, columns).
    """
    return _align(input, rois, *output_size, spatial_scale, sampling_ratio)  # type: ignore[no-any-return]  # untyped


def new_rotated_boxes(self: Any, tensor: Any) -> None:
    """`RotatedBoxes.__init__`, which asks whether there is any box, since none may have any
    shape."""
    tensor = torch.as_tensor(tensor, dtype=torch.float32)
    none = is_static(tensor.numel()) and tensor.numel() == 0
    self.tensor = tensor.reshape(-1, 5) if none else tensor


def clip_rotated(self: Any, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
    """`RotatedBoxes.clip`, which clips those that are almost upright, and looks them up first."""
    self.tensor = _clipped(self.tensor, box_size, clip_angle_threshold)


def _clipped(boxes: Tensor, size: tuple[int, int], threshold: float = 1.0) -> Tensor:
    x, y, width, height, angle = boxes.unbind(1)
    angle = (angle + 180.0) % 360.0 - 180.0
    rows, columns = size
    left, right = ((x + half).clamp(min=0, max=columns) for half in (-width / 2.0, width / 2.0))
    top, bottom = ((y + half).clamp(min=0, max=rows) for half in (-height / 2.0, height / 2.0))
    clipped = [
        *((left + right) / 2.0, (top + bottom) / 2.0),
        *(torch.min(width, right - left), torch.min(height, bottom - top)),
    ]
    is_upright = angle.abs() <= threshold
    kept = zip(clipped, (x, y, width, height), strict=True)
    return torch.stack([*(torch.where(is_upright, *pair) for pair in kept), angle], 1)


_ROTATED = BoxKind(5, RotatedBoxes, _clipped, lambda boxes: boxes[:, 2:4], batched_nms_rotated)


def find_top_rrpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Any]:
    """Detectron2's function of this name, for inference; args and result as of `top_proposals`."""
    limits = (nms_thresh, pre_nms_topk, post_nms_topk, min_box_size)
    return top_proposals(_ROTATED, proposals, pred_objectness_logits, image_sizes, limits)


def fast_rcnn_inference_single_image_rotated(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Any, Tensor]:
    """Detectron2's function of this name; args and result as of `detections_of_image`."""
    limits = (score_thresh, nms_thresh, topk_per_image)
    return detections_of_image(_ROTATED, boxes, scores, image_shape, limits)


register_boxes(RotatedBoxes)
