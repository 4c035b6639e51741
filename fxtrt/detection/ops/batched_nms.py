"""Define `fxtrt::batched_nms`, torchvision's NMS within categories."""

from __future__ import annotations

from torch import Tensor
from torch.library import custom_op
from torchvision.ops import boxes as box_ops

from ...registry import explain
from .data_dependent_sizes import fake_selection

__all__ = ["batched_nms"]

_batched_nms = box_ops.batched_nms
"""torchvision's own function, read at import: during capture the operator below replaces it."""


@custom_op("fxtrt::batched_nms", mutates_args=())
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Call `torchvision.ops.batched_nms`.

    The original suppresses in one of two ways, which round differently: the number of boxes
    decides which.

    Args:
        boxes: (N, 4), floating point.
        scores: (N,).
        idxs: (N,), the category of each box.

    Returns:
        (K,), int64: indices of the boxes that are kept, by falling score.
    """
    return _batched_nms(boxes, scores, idxs, iou_threshold)  # type: ignore[no-any-return]  # untyped


@batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return fake_selection(boxes)


explain("fxtrt::batched_nms", "how it suppresses depends on the number of boxes")
