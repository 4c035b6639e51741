"""Functions of Detectron2 that branch on data, each as one operator of a graph.

Importing this module defines the operators, which are Detectron2's own functions inside.
"""

from __future__ import annotations

import detectron2.layers
import torch
from torch import Tensor

from .lengths import selection_of

__all__ = ["batched_nms"]

_batched_nms = detectron2.layers.batched_nms


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
