"""Define `fxtrt::box_detections`, which picks a box head's detections of each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..box_coding import apply_deltas, clip
from ..kernels.available import TRITON
from ..padded_rows import new_counts, pad_rows
from .batched_nms import batched_nms

__all__ = ["Detections", "box_detections"]

Detections = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
_SMALLEST_SIDE = 1e-2
"""torchvision drops boxes with a shorter side than this, in pixels."""


@custom_op("fxtrt::box_detections", mutates_args=())
def box_detections(
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
    return _composed(
        logits, deltas, proposals, counts, image_sizes, weights, score_thresh, nms_thresh, most,
        library,
    )  # fmt: skip


@box_detections.register_kernel("cuda")
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
    """Run the Triton kernels, which wait for nothing, if they take so many candidates.

    Without them the composition runs, which waits for the GPU and looks at all candidates.
    """
    if TRITON:
        from ..kernels import box_head

        if min(candidates, logits[0].shape[1] * proposals.shape[1]) <= box_head.MOST_BOXES:
            return box_head.box_detections(
                _probabilities(logits), deltas, proposals, counts, image_sizes, weights,
                score_thresh, nms_thresh, most, candidates, library, _SMALLEST_SIDE,
            )  # fmt: skip
    return _composed(
        logits, deltas, proposals, counts, image_sizes, weights, score_thresh, nms_thresh, most,
        library,
    )  # fmt: skip


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
    library: str,
) -> Detections:
    """Select image by image with the libraries' own operators."""
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
    return _padded(found, most) if found else _empty(image_sizes, most)


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


def _padded(found: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], most: int) -> Detections:
    boxes, scores, classes, rows = zip(*found, strict=True)
    certain = torch.zeros(len(found), dtype=torch.bool, device=boxes[0].device)
    return (
        pad_rows(boxes, most, 0),
        pad_rows(scores, most, 0),
        pad_rows(classes, most, -1),
        pad_rows(rows, most, -1),
        new_counts(scores),
        certain,
    )


def _empty(image_sizes: Tensor, most: int) -> Detections:
    """Allocate the results; `image_sizes` tells their device and how many images there are."""
    images = image_sizes.shape[0]
    table = (images, most)
    return (
        image_sizes.new_empty((*table, 4), dtype=torch.float32),
        image_sizes.new_empty(table, dtype=torch.float32),
        image_sizes.new_empty(table, dtype=torch.int64),
        image_sizes.new_empty(table, dtype=torch.int64),
        image_sizes.new_empty(images, dtype=torch.int32),
        image_sizes.new_empty(images, dtype=torch.bool),
    )


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
    return _empty(image_sizes, most)


explain("fxtrt::box_detections", "which boxes it keeps depends on the data")
