"""Equivalents of what Detectron2 does to pick proposals and detections of two-stage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from .detectron2_operators import batched_nms
from .detectron2_structures import clipped, rows_where

__all__ = ["IS_0_4", "fast_rcnn_inference_single_image", "find_top_rpn_proposals"]

IS_0_4 = find_spec("detectron2.modeling.meta_arch.dense_detector") is None
"""Whether this is Detectron2 0.4: it sorts all candidates, where later versions take the top ones,
and it knows no base class of dense detectors."""


def find_top_rpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Any]:
    """Detectron2's function of this name, for inference: it always filters, not only if it must.

    Args:
        proposals: of each level, (images, boxes, 4).
        pred_objectness_logits: of each level, (images, boxes).

    Returns:
        Of each image, its `Instances`, by falling score.
    """
    scores, boxes, levels = [], [], []
    for level, (boxes_of_level, logits) in enumerate(
        zip(proposals, pred_objectness_logits, strict=True)
    ):
        count = torch.sym_min(logits.shape[1], pre_nms_topk)
        highest, best = _highest(logits, count)
        images = torch.arange(len(image_sizes), device=logits.device)[:, None]
        scores.append(highest)
        boxes.append(boxes_of_level[images, best])
        levels.append(torch.full((count,), level, dtype=torch.int64, device=logits.device))
    limits = (nms_thresh, post_nms_topk, min_box_size)
    by_image = zip(torch.cat(boxes, 1), torch.cat(scores, 1), image_sizes, strict=True)
    return [
        _proposals_of_image(its_boxes, its_scores, torch.cat(levels), size, *limits)
        for its_boxes, its_scores, size in by_image
    ]


def _highest(logits: Tensor, count: int | torch.SymInt) -> tuple[Tensor, Tensor]:
    """The highest of each row and their indices, equal ones in the order of Detectron2."""
    if not IS_0_4:
        highest, best = logits.topk(count, dim=1)
        return highest, best
    ordered, order = logits.sort(descending=True, dim=1)
    return ordered.narrow(1, 0, count), order.narrow(1, 0, count)


def _proposals_of_image(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    size: tuple[int, int],
    nms_thresh: float,
    most: int,
    min_box_size: float,
) -> Any:
    finite = boxes.isfinite().all(dim=1) & scores.isfinite()
    boxes, scores, levels = rows_where(finite, boxes, scores, levels)
    boxes = clipped(boxes, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes, scores, levels = rows_where((sides > min_box_size).all(dim=1), boxes, scores, levels)
    kept = batched_nms(boxes, scores, levels, nms_thresh)[:most]
    result = Instances(size)
    result.proposal_boxes = Boxes(boxes[kept])
    result.objectness_logits = scores[kept]
    return result


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Any, Tensor]:
    """Detectron2's function of this name: it always filters, not only if it must.

    Args:
        boxes: (R, 4 * classes) or (R, 4); scores: (R, classes + 1).

    Returns:
        The image's `Instances`, and which of the R rows they come from.
    """
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    boxes, scores = rows_where(finite, boxes, scores)
    scores = scores[:, :-1]
    classes = boxes.shape[1] // 4
    by_class = clipped(boxes.reshape(-1, 4), image_shape).view(-1, classes, 4)
    found = (scores > score_thresh).nonzero()
    row, label = found[:, 0], found[:, 1]
    boxes = by_class[row, 0] if classes == 1 else by_class[row, label]
    scores = scores[row, label]
    kept = batched_nms(boxes, scores, label, nms_thresh)
    if topk_per_image >= 0:
        kept = kept[:topk_per_image]
    result = Instances(image_shape)
    result.pred_boxes = Boxes(boxes[kept])
    result.scores = scores[kept]
    result.pred_classes = label[kept]
    return result, row[kept]
