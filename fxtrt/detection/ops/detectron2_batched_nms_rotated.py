"""Define `fxtrt::detectron2_batched_nms_rotated`, Detectron2's NMS of rotated boxes."""

from __future__ import annotations

import detectron2.layers
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from .data_dependent_sizes import fake_selection

__all__ = ["batched_nms_rotated"]

_batched_nms_rotated = detectron2.layers.batched_nms_rotated


@custom_op("fxtrt::detectron2_batched_nms_rotated", mutates_args=())
def batched_nms_rotated(
    boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float
) -> Tensor:
    """Call `detectron2.layers.batched_nms_rotated`.

    Args:
        boxes: (N, 5): x and y of the centre, width and height in pixels, and an angle in degrees.
        scores: (N,).
        idxs: (N,), the category of each box.

    Returns:
        (K,), int64: indices of the boxes that are kept, by falling score.
    """
    return _batched_nms_rotated(boxes, scores, idxs, iou_threshold)  # type: ignore[no-any-return]  # untyped


@batched_nms_rotated.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return fake_selection(boxes)


explain(
    "fxtrt::detectron2_batched_nms_rotated",
    "a kernel of Detectron2's _C without a TensorRT layer",
)
