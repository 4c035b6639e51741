"""Define `fxtrt::box_detections`, which picks a box head's detections of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..box_coding import apply_deltas, clip
from ..kernels.available import TRITON
from ..padded_rows import new_found, pad_found
from .batched_nms import batched_nms

__all__ = ["Detections", "box_detections"]

Detections = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
_SMALLEST_SIDE = 1e-2
"""torchvision drops boxes with a shorter side than this, in pixels."""


def _composed(
    logits: Sequence[Tensor],
    deltas: Tensor,
    proposals: Tensor,
    counts: Tensor,
    image_sizes: Tensor,
    weights: Sequence[float],
    score_thresh: float,
    nms_thresh: float,
    most: int,
    candidates: int,
    library: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Decode, filter and suppress within each class; keep the `most` best of each image.

    It does what Detectron2's `fast_rcnn_inference` or torchvision's
    `RoIHeads.postprocess_detections` does, always in float32. The results have a fixed shape:
    rows from an image's count on hold boxes and scores of 0, classes and rows of -1.

    Args:
        logits: (B * R, C + 1) for each stage of a cascade, one otherwise. The probabilities of
            the stages are averaged. The background is the last class for Detectron2, the first
            for torchvision.
        deltas: (B * R, 4), (B * R, C * 4) for Detectron2 or (B * R, (C + 1) * 4) for torchvision.
        proposals: (B, R, 4).
        counts: (B,), int32: how many proposals of each image are no padding.
        image_sizes: (B, 2), height and width without padding.
        weights: what dx, dy, dw and dh are divided by.
        candidates: how many of the best scores of an image the kernels on a GPU suppress.
        library: "detectron2" or "torchvision".

    Returns:
        (B, most, 4) boxes, (B, most) scores, (B, most) classes and (B, most) rows, both int64:
        a row is the index of the proposal in its image; (B,) counts, int32; and (B,) bool, which
        is True where `candidates` was too small to be sure of the result (never on the CPU).

    On a GPU the kernels give what the library gives there, but for the last bit of a coordinate.
    Suppression decides about a box from better ones only. So the result is certain if all
    candidates were looked at, or if `most` boxes were kept among those that were. Otherwise
    `overflow` tells so. Any number of scores may be above the threshold.
    """
    probabilities = _probabilities(logits)
    decoded = apply_deltas(deltas, proposals.reshape(-1, 4), weights)
    select = {"detectron2": _detectron2, "torchvision": _torchvision}[library]
    images = zip(
        probabilities.view(*proposals.shape[:2], probabilities.shape[1]),
        decoded.view(*proposals.shape[:2], decoded.shape[1], 4),
        counts.tolist(),
        image_sizes,
        strict=True,
    )
    found = [
        select(scores[:count], boxes[:count], size, score_thresh, nms_thresh, most)
        for scores, boxes, count, size in images
    ]
    found_boxes, found_scores, classes, rows, found_counts = pad_found(
        found, most, image_sizes, labels=2
    )
    certain = torch.zeros_like(found_counts, dtype=torch.bool)
    return found_boxes, found_scores, classes, rows, found_counts, certain


box_detections = custom_op("fxtrt::box_detections", mutates_args=())(_composed)


@box_detections.register_kernel("cuda")
def _(logits: Sequence[Tensor], deltas: Tensor, proposals: Tensor, *others: Any) -> Detections:
    """Run the Triton kernels, which wait for nothing, if they take so many candidates.

    Without them the composition runs, which waits for the GPU and looks at all candidates.
    """
    if TRITON:
        from ..kernels import box_head

        *_, candidates, _library = others
        if min(candidates, logits[0].shape[1] * proposals.shape[1]) <= box_head.MOST_BOXES:
            probabilities = _probabilities(logits)
            return box_head.box_detections(
                probabilities, deltas, proposals, *others, smallest_side=_SMALLEST_SIDE
            )
    return _composed(logits, deltas, proposals, *others)


def _probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Average the softmax of all stages, in Detectron2's order of operations."""
    total = torch.softmax(logits[0].float(), -1)
    for stage in logits[1:]:
        total = total + torch.softmax(stage.float(), -1)
    return total if len(logits) == 1 else total * (1.0 / len(logits))


def _detectron2(
    scores: Tensor, boxes: Tensor, size: Tensor, score_thresh: float, nms_thresh: float, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Select as `fast_rcnn_inference_single_image`.

    Args:
        scores: (N, C + 1).
        boxes: (N, C or 1, 4).
        size: (2,), height and width.
    """
    finite = boxes.flatten(1).isfinite().all(1) & scores.isfinite().all(1)
    live = finite.nonzero()[:, 0]
    scores, boxes = scores[live, :-1], clip(boxes[live], size)
    row, label = (scores > score_thresh).nonzero(as_tuple=True)
    scores, boxes = scores[row, label], boxes[row, label if boxes.shape[1] > 1 else 0]
    keep = batched_nms(boxes, scores, label, nms_thresh)[:most]
    return boxes[keep], scores[keep], label[keep], live[row[keep]]


def _torchvision(
    scores: Tensor, boxes: Tensor, size: Tensor, score_thresh: float, nms_thresh: float, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Select as `RoIHeads.postprocess_detections`; a NaN fails each comparison there."""
    row, label = (scores[:, 1:] > score_thresh).nonzero(as_tuple=True)
    label = label + 1
    scores = scores[row, label]
    boxes = clip(boxes[row, label if boxes.shape[1] > 1 else 0], size)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= _SMALLEST_SIDE).all(1)
    boxes, scores, label, row = boxes[large], scores[large], label[large], row[large]
    keep = batched_nms(boxes, scores, label, nms_thresh)[:most]
    return boxes[keep], scores[keep], label[keep], row[keep]


@box_detections.register_fake
def _(
    logits: Sequence[Tensor],
    deltas: Tensor,
    proposals: Tensor,
    counts: Tensor,
    image_sizes: Tensor,
    weights: Sequence[float],
    score_thresh: float,
    nms_thresh: float,
    most: int,
    candidates: int,
    library: str,
) -> Detections:
    boxes, scores, classes, rows, counts = new_found(image_sizes, most, labels=2)
    overflow = torch.empty_like(counts, dtype=torch.bool)
    return boxes, scores, classes, rows, counts, overflow


explain("fxtrt::box_detections", "which boxes it keeps depends on the data")
