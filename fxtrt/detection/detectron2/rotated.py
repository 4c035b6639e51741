"""Replace what Detectron2 does with rotated boxes by equivalents.

Boxes are (N, 5): x and y of the centre, width and height, in pixels, and an angle in degrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import RotatedBoxes
from torch import Tensor

from ...graph.sizes import is_static
from ..ops.detectron2_batched_nms_rotated import batched_nms_rotated
from .proposals import BoxKind, detections_of_image, top_proposals
from .structures import register_boxes

__all__ = [
    "clip_rotated",
    "fast_rcnn_inference_single_image_rotated",
    "find_top_rrpn_proposals",
    "new_rotated_boxes",
]


def new_rotated_boxes(self: Any, tensor: Any) -> None:
    """Replace `RotatedBoxes.__init__`, whose `numel() == 0` test is a data-dependent branch.

    Only a statically empty tensor is reshaped to (0, 5).
    """
    tensor = torch.as_tensor(tensor, dtype=torch.float32)
    is_empty = is_static(tensor.numel()) and tensor.numel() == 0
    self.tensor = tensor.reshape(-1, 5) if is_empty else tensor


def clip_rotated(self: Any, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
    """Replace `RotatedBoxes.clip`, which first looks up the boxes that are almost upright."""
    self.tensor = _clipped(self.tensor, box_size, clip_angle_threshold)


def _clipped(boxes: Tensor, size: tuple[int, int], threshold: float = 1.0) -> Tensor:
    """Clip the boxes whose angle is at most `threshold` degrees, and leave the others."""
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
    """Replace Detectron2's function of this name for inference, by `top_proposals`."""
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
    """Replace Detectron2's function of this name by `detections_of_image`."""
    limits = (score_thresh, nms_thresh, topk_per_image)
    return detections_of_image(_ROTATED, boxes, scores, image_shape, limits)


register_boxes(RotatedBoxes)
