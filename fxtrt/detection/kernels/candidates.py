"""Suppress the best candidates of each image within classes, and write the detections.

A head selects its candidates by falling score, equal scores by rising index, with the radix
selection of `topk`, and decodes them. What is left out cannot change the result unless the
certificate says so. Greedy suppression decides about a box from better ones only. So if all
candidates are looked at, or if enough of those that are looked at are kept, the result is the
unbounded one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT
from .nms import MOST_BOXES, SHIFTED_BOXES, nms_sorted

__all__ = ["MOST_BOXES", "Candidates", "detections", "new_candidates", "tally"]

_LOWEST = tl.constexpr(-2139095041)
"""The `_order` of -inf."""


@dataclass(frozen=True)
class Candidates:
    """The N best candidates of each image, by falling score; fewer where scores are negative.

    scores: (B, N), float32. index: (B, N), int32, what a head calls them. boxes: (B, N, 4),
    float32. classes: (B, N), int32. valid: (B, N), int8: others are neither kept nor suppress.
    tallies: (B, P, 2), int32, which P programs write with `tally`.
    """

    scores: Tensor
    index: Tensor
    boxes: Tensor
    classes: Tensor
    valid: Tensor
    tallies: Tensor


def new_candidates(scores: Tensor, index: Tensor, tallies: Tensor) -> Candidates:
    """Allocate what is still to be computed of candidates with these scores."""
    return Candidates(
        scores,
        index,
        boxes=scores.new_empty((*scores.shape, 4)),
        classes=torch.empty_like(index),
        valid=torch.empty_like(index, dtype=torch.int8),
        tallies=tallies,
    )


@triton.jit
def tally(tallies, program, counted, admitted, x1, y1, x2, y2):
    """Write how many candidates a program counted, and the largest coordinate of the admitted.

    NMS shifts classes by that coordinate.
    """
    largest = tl.maximum(tl.maximum(_order(x1), _order(y1)), tl.maximum(_order(x2), _order(y2)))
    tl.store(tallies + program * 2, tl.sum(counted.to(tl.int32), 0))
    tl.store(tallies + program * 2 + 1, tl.max(tl.where(admitted, largest, _LOWEST), 0))


def detections(
    found: Candidates, iou_threshold: float, most: int, limit: int, classes_of_row: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Suppress within classes and keep the best of each image.

    Args:
        limit: if an image counted more candidates than this, some are not looked at.
        classes_of_row: what an index is divided by to get the row of a detection.

    Returns:
        (B, most, 4) boxes, (B, most) scores, classes and rows, (B,) counts and (B,) overflow, as
        `fxtrt::box_detections` does.
    """
    (images, bound), device = found.scores.shape, found.scores.device
    counts = torch.empty(images, dtype=torch.int32, device=device)
    totals = torch.empty(images, dtype=torch.int32, device=device)
    largest = torch.empty(images, dtype=torch.float32, device=device)
    _sum_up[images,](
        found.tallies, counts, totals, largest, found.tallies.shape[1], bound,
        SHIFTED=SHIFTED_BOXES, BLOCK=1024, **EXACT,
    )  # fmt: skip
    kept, kept_counts = nms_sorted(
        found.boxes, found.valid, iou_threshold, most, groups=found.classes, counts=counts,
        largest=largest,
    )  # fmt: skip
    boxes = torch.empty((images, most, 4), dtype=torch.float32, device=device)
    scores = torch.empty((images, most), dtype=torch.float32, device=device)
    classes = torch.empty((images, most), dtype=torch.int64, device=device)
    rows = torch.empty((images, most), dtype=torch.int64, device=device)
    overflow = torch.empty(images, dtype=torch.bool, device=device)
    _write[images,](
        kept, kept_counts, found.scores, found.index, found.boxes, found.classes, totals, boxes,
        scores, classes, rows, overflow.view(torch.int8), bound, most, limit, classes_of_row,
        MOST=triton.next_power_of_2(max(most, 1)), **EXACT,
    )  # fmt: skip
    return boxes, scores, classes, rows, kept_counts, overflow


@triton.jit
def _order(x):
    """Return an int32 that orders as float32 does, NaN above all."""
    pattern = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    key = tl.where(pattern >= 0, pattern, pattern ^ 0x7FFFFFFF)
    return tl.where(x != x, 0x7FC00000, key)


@triton.jit(do_not_specialize=["parts", "bound"])
def _sum_up(
    tallies, counts, totals, largest, parts, bound, SHIFTED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Put together what the programs of an image counted."""
    image = tl.program_id(0)
    count = tl.zeros([BLOCK], tl.int32)
    order = tl.zeros([BLOCK], tl.int32) + _LOWEST
    for start in range(0, parts, BLOCK):
        part = start + tl.arange(0, BLOCK)
        place = tallies + (image.to(tl.int64) * parts + part) * 2
        count += tl.load(place, mask=part < parts, other=0)
        order = tl.maximum(order, tl.load(place + 1, mask=part < parts, other=_LOWEST))
    total = tl.sum(count, 0)
    tl.store(totals + image, total)
    tl.store(counts + image, tl.minimum(total, bound))
    highest = tl.max(order, 0)
    pattern = tl.where(highest >= 0, highest, highest ^ 0x7FFFFFFF)
    # With -1, classes are shifted by nothing; boxes of different ones are not compared anyway.
    span = tl.where(total > SHIFTED, -1.0, pattern.to(tl.float32, bitcast=True))
    tl.store(largest + image, span)


@triton.jit(do_not_specialize=["bound", "most", "limit", "classes_of_row"])
def _write(
    kept, kept_counts, scores, index, boxes, classes, totals, boxes_out, scores_out, classes_out,
    rows_out, overflow_out, bound, most, limit, classes_of_row, MOST: tl.constexpr,
):  # fmt: skip
    """Copy what is kept, pad it, and tell whether what was not looked at could have changed it."""
    image = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, MOST)
    exists = slot < most
    count = tl.load(kept_counts + image)
    live = slot < count
    source = image * bound + tl.load(kept + image * most + slot, mask=live, other=0)
    target = image * most + slot
    for side in tl.static_range(4):
        value = tl.load(boxes + source * 4 + side, mask=live, other=0.0)
        tl.store(boxes_out + target * 4 + side, value, mask=exists)
    tl.store(scores_out + target, tl.load(scores + source, mask=live, other=0.0), mask=exists)
    label = tl.load(classes + source, mask=live, other=-1)
    tl.store(classes_out + target, label.to(tl.int64), mask=exists)
    row = tl.load(index + source, mask=live, other=0) // classes_of_row
    tl.store(rows_out + target, tl.where(live, row, -1).to(tl.int64), mask=exists)
    overflow = (tl.load(totals + image) > limit) & (count < most)
    tl.store(overflow_out + image, overflow.to(tl.int8))
