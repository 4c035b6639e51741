"""Replace the functions by which torchvision picks the detections of one-stage detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import boxes as box_ops

from ..ops.batched_nms import batched_nms
from ..ops.best_above import best_of_table
from ..ops.best_of_each_class import best_of_each_class

__all__ = ["detections_of_fcos", "detections_of_retinanet", "detections_of_ssd"]

_Detections = dict[str, Tensor]


def detections_of_retinanet(
    self: Any,
    head_outputs: Mapping[str, Sequence[Tensor]],
    anchors: Sequence[Sequence[Tensor]],
    image_shapes: Sequence[tuple[int, int]],
) -> list[_Detections]:
    """Replace `RetinaNet.postprocess_detections`, whose numbers of boxes depend on scores.

    Args:
        head_outputs: "cls_logits" (N, R, classes) and "bbox_regression" (N, R, 4) for each level.
        anchors: (R, 4) for each image and level.
    """
    scores = [torch.sigmoid(logits) for logits in head_outputs["cls_logits"]]
    return _by_level(
        self, self.box_coder.decode_single, scores, head_outputs, anchors, image_shapes
    )


def detections_of_fcos(
    self: Any,
    head_outputs: Mapping[str, Sequence[Tensor]],
    anchors: Sequence[Sequence[Tensor]],
    image_shapes: Sequence[tuple[int, int]],
) -> list[_Detections]:
    """Replace `FCOS.postprocess_detections`, whose numbers of boxes depend on scores.

    Arguments are as in `detections_of_retinanet`; `head_outputs` also has "bbox_ctrness" (N, R, 1).
    """
    pairs = zip(head_outputs["cls_logits"], head_outputs["bbox_ctrness"], strict=True)
    scores = [torch.sqrt(torch.sigmoid(a) * torch.sigmoid(b)) for a, b in pairs]
    return _by_level(self, self.box_coder.decode, scores, head_outputs, anchors, image_shapes)


def _by_level(
    detector: Any,
    decode: Callable[[Tensor, Tensor], Tensor],
    scores: Sequence[Tensor],
    head_outputs: Mapping[str, Sequence[Tensor]],
    anchors: Sequence[Sequence[Tensor]],
    image_shapes: Sequence[tuple[int, int]],
) -> list[_Detections]:
    detections = []
    for image, shape in enumerate(image_shapes):
        boxes, best, labels = [], [], []
        levels = zip(scores, head_outputs["bbox_regression"], anchors[image], strict=True)
        for its_scores, regression, its_anchors in levels:
            found, row, columns = best_of_table(
                its_scores[image], detector.score_thresh, detector.topk_candidates
            )
            decoded = decode(regression[image][row], its_anchors[row])
            boxes.append(box_ops.clip_boxes_to_image(decoded, shape))
            best.append(found)
            labels.append(columns)
        detections.append(_suppressed(detector, *map(torch.cat, (boxes, best, labels))))
    return detections


def detections_of_ssd(
    self: Any,
    head_outputs: Mapping[str, Tensor],
    image_anchors: Sequence[Tensor],
    image_shapes: Sequence[tuple[int, int]],
) -> list[_Detections]:
    """Replace `SSD.postprocess_detections`, whose numbers of boxes depend on scores.

    Args:
        head_outputs: "cls_logits" (N, R, classes) and "bbox_regression" (N, R, 4).
        image_anchors: (R, 4) for each image.
    """
    scores = torch.softmax(head_outputs["cls_logits"], dim=-1)
    regressions = head_outputs["bbox_regression"]
    detections = []
    for of_image, its_scores, anchors, shape in zip(
        regressions, scores, image_anchors, image_shapes, strict=True
    ):
        boxes = box_ops.clip_boxes_to_image(self.box_coder.decode_single(of_image, anchors), shape)
        best, row, labels = best_of_each_class(its_scores, self.score_thresh, self.topk_candidates)
        detections.append(_suppressed(self, boxes[row], best, labels))
    return detections


def _suppressed(detector: Any, boxes: Tensor, scores: Tensor, labels: Tensor) -> _Detections:
    kept = batched_nms(boxes, scores, labels, detector.nms_thresh)[: detector.detections_per_img]
    return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
