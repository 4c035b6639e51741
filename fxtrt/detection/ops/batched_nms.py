"""Define `fxtrt::batched_nms`, torchvision's NMS within categories."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..torchvision_library import nms
from .data_dependent_sizes import fake_selection

__all__ = ["batched_nms"]

_MOST_AT_ONCE_ON_CPU, _MOST_AT_ONCE = 4000, 100_000
"""The most coordinates of boxes that are suppressed at once, as in torchvision."""


@custom_op("fxtrt::batched_nms", mutates_args=())
def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Compute what `torchvision.ops.batched_nms` computes, without its Python code.

    It suppresses in one of two ways, which round differently: the number of boxes
    decides which.

    Args:
        boxes: (N, 4), floating point.
        scores: (N,).
        idxs: (N,), the category of each box.

    Returns:
        (K,), int64: indices of the boxes that are kept, by falling score.
    """
    if boxes.numel() > (_MOST_AT_ONCE_ON_CPU if boxes.is_cpu else _MOST_AT_ONCE):
        return _each_category(boxes, scores, idxs, iou_threshold)
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    # The offsets keep boxes of different categories apart.
    offsets = idxs.to(boxes) * (boxes.max() + torch.tensor(1).to(boxes))
    return nms(boxes + offsets[:, None], scores, iou_threshold)


def _each_category(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for category in torch.unique(idxs):
        rows = torch.where(idxs == category)[0]
        kept[rows[nms(boxes[rows], scores[rows], iou_threshold)]] = True
    rows = torch.where(kept)[0]
    return rows[scores[rows].sort(descending=True)[1]]


@batched_nms.register_fake
def _(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    return fake_selection(boxes)


explain("fxtrt::batched_nms", "how it suppresses depends on the number of boxes")
