"""Replace the functions by which Detectron2's two-stage detectors pick proposals and detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..ops.detectron2_batched_nms import batched_nms
from .structures import clipped, rows_where

__all__ = [
    "IS_0_4",
    "BoxKind",
    "detections_of_image",
    "fast_rcnn_inference_single_image",
    "find_top_rpn_proposals",
    "top_proposals",
]

IS_0_4 = find_spec("detectron2.modeling.meta_arch.dense_detector") is None
"""Whether this is Detectron2 0.4, which has no base class of dense detectors.

It also sorts all candidates, where later versions call `topk`."""


@dataclass(frozen=True, slots=True)
class BoxKind:
    """The functions that make, clip, measure and suppress boxes of one form.

    columns: the numbers that describe a box.
    make:    Detectron2's class, which holds (N, columns).
    clipped: cuts boxes off at the borders of an image of the given height and width.
    sides:   returns (N, 2), widths and heights.
    nms:     takes and returns what `batched_nms` does.
    """

    columns: int
    make: Callable[[Tensor], Any]
    clipped: Callable[[Tensor, tuple[int, int]], Tensor]
    sides: Callable[[Tensor], Tensor]
    nms: Callable[[Tensor, Tensor, Tensor, float], Tensor]


_UPRIGHT = BoxKind(4, Boxes, clipped, lambda boxes: boxes[:, 2:] - boxes[:, :2], batched_nms)


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
    """Replace Detectron2's function of this name for inference; always filter, without a branch.

    Arguments and result are those of `top_proposals`.
    """
    limits = (nms_thresh, pre_nms_topk, post_nms_topk, min_box_size)
    return top_proposals(_UPRIGHT, proposals, pred_objectness_logits, image_sizes, limits)


def top_proposals(
    kind: BoxKind,
    proposals: Sequence[Tensor],
    logits_of_levels: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    limits: tuple[float, int, int, float],
) -> list[Any]:
    """Return the best proposals of each image.

    Args:
        proposals: (images, boxes, kind.columns) for each level.
        logits_of_levels: (images, boxes) for each level.
        limits: the threshold of NMS, the most boxes before and after it, the smallest side.

    Returns:
        The `Instances` of each image, by falling score.
    """
    nms_thresh, most_before, most, min_box_size = limits
    scores, boxes, levels = [], [], []
    for level, (boxes_of_level, logits) in enumerate(zip(proposals, logits_of_levels, strict=True)):
        count = torch.sym_min(logits.shape[1], most_before)
        highest, best = _highest(logits, count)
        images = torch.arange(len(image_sizes), device=logits.device)[:, None]
        scores.append(highest)
        boxes.append(boxes_of_level[images, best])
        levels.append(torch.full((count,), level, dtype=torch.int64, device=logits.device))
    by_image = zip(torch.cat(boxes, 1), torch.cat(scores, 1), image_sizes, strict=True)
    return [
        _proposals_of_image(
            kind, its_boxes, its_scores, torch.cat(levels), size, nms_thresh, most, min_box_size
        )
        for its_boxes, its_scores, size in by_image
    ]


def _highest(logits: Tensor, count: int | torch.SymInt) -> tuple[Tensor, Tensor]:
    """Return the highest logits of each row and their indices; Detectron2's order breaks ties."""
    if not IS_0_4:
        highest, best = logits.topk(count, dim=1)
        return highest, best
    ordered, order = logits.sort(descending=True, dim=1)
    return ordered.narrow(1, 0, count), order.narrow(1, 0, count)


def _proposals_of_image(
    kind: BoxKind,
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
    boxes = kind.clipped(boxes, size)
    large = (kind.sides(boxes) > min_box_size).all(dim=1)
    boxes, scores, levels = rows_where(large, boxes, scores, levels)
    kept = kind.nms(boxes, scores, levels, nms_thresh)[:most]
    result = Instances(size)
    result.proposal_boxes = kind.make(boxes[kept])
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
    """Replace Detectron2's function of this name; always filter, without a branch.

    Arguments and result are those of `detections_of_image`.
    """
    limits = (score_thresh, nms_thresh, topk_per_image)
    return detections_of_image(_UPRIGHT, boxes, scores, image_shape, limits)


def detections_of_image(
    kind: BoxKind,
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    limits: tuple[float, float, int],
) -> tuple[Any, Tensor]:
    """Return the best detections of an image.

    Args:
        boxes: (R, kind.columns * classes) or (R, kind.columns).
        scores: (R, classes + 1), the background's last.
        limits: the thresholds of scores and of NMS, the most detections.

    Returns:
        The image's `Instances`, and the indices of the R rows that they come from.
    """
    score_thresh, nms_thresh, topk_per_image = limits
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    boxes, scores = rows_where(finite, boxes, scores)
    scores = scores[:, :-1]
    columns, classes = kind.columns, boxes.shape[1] // kind.columns
    by_class = kind.clipped(boxes.reshape(-1, columns), image_shape).view(-1, classes, columns)
    found = (scores > score_thresh).nonzero()
    row, label = found[:, 0], found[:, 1]
    boxes = by_class[row, 0] if classes == 1 else by_class[row, label]
    scores = scores[row, label]
    kept = kind.nms(boxes, scores, label, nms_thresh)
    if topk_per_image >= 0:
        kept = kept[:topk_per_image]
    result = Instances(image_shape)
    result.pred_boxes = kind.make(boxes[kept])
    result.scores = scores[kept]
    result.pred_classes = label[kept]
    return result, row[kept]
