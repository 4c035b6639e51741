"""Define `fxtrt::dense_detections`, which picks the detections of one-stage detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..anchors import grid_anchors
from ..box_coding import apply_deltas, apply_linear_deltas, clip
from ..dense_rules import DenseRules
from ..kernels.available import TRITON
from ..padded_rows import new_found, pad_found
from .batched_nms import batched_nms

__all__ = ["dense_detections"]

DenseDetections = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
_Found = tuple[Tensor, Tensor, Tensor]
"""Boxes (N, 4), scores (N,) and classes (N,), int64."""


@custom_op("fxtrt::dense_detections", mutates_args=())
def dense_detections(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    offset: float,
    weights: Sequence[float],
    score_thresh: float,
    nms_thresh: float,
    pre_nms_topk: int,
    most: int,
    candidates: int,
    library: str,
    head: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pick the best of each level, decode, suppress within classes, keep each image's best.

    It does what the `inference_single_image` of Detectron2's RetinaNet and FCOS or the
    `postprocess_detections` of torchvision's RetinaNet, FCOS and SSD does, always in float32.
    The results have a fixed shape: rows from an image's count on hold boxes and scores of 0 and
    classes of -1. Detectron2 does not clip boxes here, nor does it drop what is not finite.

    Args:
        logits: (B, A * K, h, w) of each level.
        deltas: (B, A * 4, h, w) of each level.
        centerness: (B, A, h, w) of each level for FCOS, an empty list otherwise.
        cell_anchors: (A, 4) of each level, float32. For SSD the default boxes of each level
            themselves, in pixels, (h * w * A, 4) row by row: its images have one size, and its
            generator rounds in an order of its own.
        image_sizes: (B, 2), float32: height and width without padding.
        strides: the vertical and the horizontal stride of each level, one after the other; SSD
            ignores them.
        offset: anchors begin at this multiple of a stride.
        weights: what dx, dy, dw and dh are divided by; FCOS ignores them.
        pre_nms_topk: the most boxes of a level, for SSD of a class.
        candidates: how many of the best scores of an image the kernels on a GPU suppress.
        library: "detectron2", "torchvision", or "detectron2_0.4", which leaves the order of equal
            scores to `torch.sort`; the others leave it to `torch.topk`.
        head: "retinanet", "fcos" or "ssd".

    Returns:
        (B, most, 4) boxes, (B, most) scores and (B, most) classes, int64, of which SSD's begin
        with 1; (B,) counts, int32; and (B,) bool, which is True where `candidates` was too small
        to be sure of the result (never on the CPU).

    On a GPU the kernels take equal scores of a level by rising index, where these two have orders
    of their own; otherwise they give what the library gives there, but for the last bit of a
    score or coordinate. Suppression decides about a box from better ones only. So the result is
    certain if all candidates were looked at, or if `most` boxes were kept among those that were.
    Otherwise `overflow` tells so. It is never True if `candidates` is at least the number of
    levels times `pre_nms_topk`, which bounds the candidates of RetinaNet and FCOS; any number of
    scores may be above the threshold. SSD's classes are shifted for suppression by the largest
    coordinate of the candidates that were looked at, where torchvision takes all: an overlap may
    be rounded otherwise. Levels of different numbers of anchors, but for SSD, run without the
    kernels.
    """
    rules = DenseRules(
        offset, weights, score_thresh, nms_thresh, pre_nms_topk, most, candidates, library, head
    )
    return _composed(logits, deltas, centerness, cell_anchors, image_sizes, strides, rules)


@dense_detections.register_kernel("cuda")
def _(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    *numbers: Any,
) -> DenseDetections:
    """Run the Triton kernels, which wait for nothing, if they take what is given.

    Without them the composition runs, which waits for the GPU and looks at all candidates.
    """
    rules = DenseRules(*numbers)
    maps = (logits, deltas, centerness)
    found = _on_kernels(maps, cell_anchors, image_sizes, strides, rules) if TRITON else None
    if found is not None:
        return found
    return _composed(logits, deltas, centerness, cell_anchors, image_sizes, strides, rules)


def _on_kernels(
    maps: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    rules: DenseRules,
) -> DenseDetections | None:
    """Return what the kernels give, or None if they do not take so many candidates or such maps."""
    from ..kernels import dense_head, ssd_head

    if rules.candidates > dense_head.MOST_BOXES:
        return None
    logits, deltas, _ = maps
    if rules.head == "ssd":
        counts = [len(boxes) for boxes in cell_anchors]
        scores, moves = (
            torch.cat([_by_anchor(x, n) for x, n in zip(part, counts, strict=True)], 1)
            for part in (logits, deltas)
        )
        anchors = torch.cat(list(cell_anchors)).float()
        found = ssd_head.ssd_detections(scores.softmax(-1), moves, anchors, image_sizes, rules)
    elif dense_head.takes(logits, cell_anchors):
        found = dense_head.dense_detections(*maps, cell_anchors, image_sizes, strides, rules)
    else:
        return None
    boxes, scores, classes, _, counts_found, overflow = found
    return boxes, scores, classes, counts_found, overflow


def _composed(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    rules: DenseRules,
) -> DenseDetections:
    """Select image by image with the libraries' own operators."""
    anchors = _anchors(logits, cell_anchors, strides, rules.offset, rules.head)
    levels = [
        [_by_anchor(maps, len(boxes)) for maps, boxes in zip(part, anchors, strict=True)]
        for part in (logits, deltas, centerness)
        if part
    ]
    select = _best_of_classes if rules.head == "ssd" else _best_of_levels
    found = []
    for image, size in enumerate(image_sizes):
        outputs = [[maps[image] for maps in part] for part in levels]
        boxes, scores, classes = select(outputs, anchors, size, rules)
        keep = batched_nms(boxes, scores, classes, rules.nms_thresh)[: rules.most]
        found.append((boxes[keep], scores[keep], classes[keep]))
    boxes, scores, classes, counts = pad_found(found, rules.most, image_sizes, labels=1)
    return boxes, scores, classes, counts, torch.zeros_like(counts, dtype=torch.bool)


def _anchors(
    logits: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    strides: Sequence[int],
    offset: float,
    head: str,
) -> list[Tensor]:
    """Return (h * w * A, 4) for each level."""
    if head == "ssd":
        return list(cell_anchors)
    pairs = zip(strides[::2], strides[1::2], strict=True)
    return [
        grid_anchors(cells, level.shape[2:], pair, offset)
        for level, cells, pair in zip(logits, cell_anchors, pairs, strict=True)
    ]


def _by_anchor(maps: Tensor, anchors: int) -> Tensor:
    """Turn (B, A * K, h, w) into (B, h * w * A, K), float32."""
    images, channels, height, width = maps.shape
    split = maps.float().reshape(images, -1, channels * height * width // anchors, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(images, anchors, -1)


def _best_of_levels(
    outputs: Sequence[Sequence[Tensor]], anchors: Sequence[Tensor], size: Tensor, rules: DenseRules
) -> _Found:
    """Decode the highest scores above the threshold of each level, one level after the other.

    Args:
        outputs: logits (N, K), deltas (N, 4) and for FCOS centerness (N, 1) of each level.
    """
    logits, deltas, *centerness = outputs
    parts = []
    for level, anchor_boxes in enumerate(anchors):
        scores = logits[level].sigmoid()
        if centerness:
            scores = torch.sqrt(scores * centerness[0][level].sigmoid())
        scores, index = _best(scores.flatten(), rules)
        row = torch.div(index, logits[level].shape[1], rounding_mode="floor")
        boxes = _decode(deltas[level][row], anchor_boxes[row], rules)
        if rules.library == "torchvision":
            boxes = clip(boxes, size)
        parts.append((boxes, scores, index % logits[level].shape[1]))
    boxes, scores, classes = (torch.cat(column) for column in zip(*parts, strict=True))
    return boxes, scores, classes


def _best_of_classes(
    outputs: Sequence[Sequence[Tensor]], anchors: Sequence[Tensor], size: Tensor, rules: DenseRules
) -> _Found:
    """Pick the highest scores above the threshold of each class but the first, the background.

    All boxes are decoded, as SSD does: the last bit of `exp` may depend on how many there are.
    """
    logits, deltas = outputs
    boxes = clip(_decode(torch.cat(list(deltas)), torch.cat(list(anchors)), rules), size)
    table = torch.softmax(torch.cat(list(logits)), -1)
    parts = []
    for label in range(1, table.shape[1]):
        scores, index = _best(table[:, label], rules)
        parts.append((boxes[index], scores, torch.full_like(index, label)))
    boxes, scores, classes = (torch.cat(column) for column in zip(*parts, strict=True))
    return boxes, scores, classes


def _best(scores: Tensor, rules: DenseRules) -> tuple[Tensor, Tensor]:
    """Return the highest scores above the threshold, by falling score, and their positions."""
    index = (scores > rules.score_thresh).nonzero()[:, 0]
    scores = scores[index]
    count = min(rules.topk, len(scores))
    if rules.library == "detectron2_0.4":
        ordered, order = scores.sort(descending=True)
        return ordered[:count], index[order[:count]]
    best, order = scores.topk(count)
    return best, index[order]


def _decode(deltas: Tensor, anchors: Tensor, rules: DenseRules) -> Tensor:
    """Return (N, 4). Detectron2's FCOS moves sides outwards only; torchvision's head sees to it."""
    if rules.head != "fcos":
        return apply_deltas(deltas, anchors, rules.weights)[:, 0]
    return apply_linear_deltas(deltas if rules.library == "torchvision" else deltas.relu(), anchors)


@dense_detections.register_fake
def _(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    offset: float,
    weights: Sequence[float],
    score_thresh: float,
    nms_thresh: float,
    pre_nms_topk: int,
    most: int,
    candidates: int,
    library: str,
    head: str,
) -> DenseDetections:
    boxes, scores, classes, counts = new_found(image_sizes, most, labels=1)
    return boxes, scores, classes, counts, torch.empty_like(counts, dtype=torch.bool)


explain("fxtrt::dense_detections", "which boxes it keeps depends on the data")
