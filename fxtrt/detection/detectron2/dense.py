"""Replace the functions by which Detectron2 picks the detections of one-stage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..ops.best_above import best_of_table
from ..ops.detectron2_batched_nms import batched_nms

__all__ = ["decode_level", "detections_of_logits"]


def decode_level(
    self: Any,
    anchors: Any,
    pred_scores: Tensor,
    pred_deltas: Tensor,
    score_thresh: float,
    topk_candidates: int,
    image_size: tuple[int, int],
) -> Any:
    """Replace `DenseDetector._decode_per_level_predictions`, whose branches depend on scores.

    Args:
        anchors: R `Boxes`.
        pred_scores: (R, classes).
        pred_deltas: (R, 4).
    """
    return _decoded(
        self, anchors, pred_scores, pred_deltas, (score_thresh, topk_candidates), image_size
    )


def detections_of_logits(
    self: Any,
    anchors: Sequence[Any],
    box_cls: Sequence[Tensor],
    box_delta: Sequence[Tensor],
    image_size: tuple[int, int],
) -> Any:
    """Replace `RetinaNet.inference_single_image` of Detectron2 0.4, which sorts all scores.

    Args:
        anchors: R `Boxes` for each level.
        box_cls: (R, classes), logits, for each level.
        box_delta: (R, 4) for each level.
    """
    limits = (self.test_score_thresh, self.test_topk_candidates)
    found = [
        _decoded(self, boxes, logits.sigmoid(), deltas, limits, image_size, stable=True)
        for boxes, logits, deltas in zip(anchors, box_cls, box_delta, strict=True)
    ]
    together = Instances.cat(found)
    kept = batched_nms(
        together.pred_boxes.tensor, together.scores, together.pred_classes, self.test_nms_thresh
    )
    return together[kept[: self.max_detections_per_image]]


def _decoded(
    detector: Any,
    anchors: Any,
    scores: Tensor,
    deltas: Tensor,
    limits: tuple[float, int],
    image_size: tuple[int, int],
    *,
    stable: bool = False,
) -> Any:
    best, row, labels = best_of_table(scores, *limits, stable)
    boxes = detector.box2box_transform.apply_deltas(deltas[row], anchors.tensor[row])
    result = Instances(image_size)
    result.pred_boxes = Boxes(boxes)
    result.scores = best
    result.pred_classes = labels
    return result
