"""Pick SSD's detections from the table of all anchors' probabilities."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dense_rules import DenseRules
from .candidates import MOST_BOXES, detections, new_candidates, tally
from .decode import EXACT, clip_box, decode, inverses, load_four, store_four
from .topk import best_of_levels

__all__ = ["ssd_detections"]

_SLOTS = 32
"""The number of boxes that a program decodes."""


def ssd_detections(
    probabilities: Tensor, deltas: Tensor, anchors: Tensor, image_sizes: Tensor, rules: DenseRules
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what `fxtrt::dense_detections` does for SSD; rows are numbers of anchors.

    The best scores of all classes are looked at, and of these each class's best are admitted. The
    number of a class's better scores is exact, because all that are better are looked at as well.

    Args:
        probabilities: (B, N, K), float32; the first class is the background.
        deltas: (B, N, 4), float32.
        anchors: (N, 4), float32.
    """
    images, rows, columns = probabilities.shape
    foreground = probabilities[:, :, 1:]
    scores = torch.where(foreground > rules.score_thresh, foreground, -1.0).flatten(1)
    bound = max(min(rules.candidates, MOST_BOXES, scores.shape[1]), 1)
    values, index = best_of_levels([scores], bound)
    programs = triton.cdiv(bound, _SLOTS)
    tallies = torch.empty((images, programs, 2), dtype=torch.int32, device=scores.device)
    found = new_candidates(values[:, 0], index[:, 0], tallies)
    _decode_best[programs, images](
        found.scores, found.index, deltas.contiguous(), anchors.contiguous(),
        image_sizes.float().contiguous(), found.boxes, found.classes, found.valid, tallies, bound,
        rows, rules.topk, inverses(rules.weights), CLASSES=columns - 1, SLOTS=_SLOTS, OTHERS=128,
        **EXACT,
    )  # fmt: skip
    limit = bound if bound == scores.shape[1] else bound - 1
    return detections(found, rules.nms_thresh, rules.most, limit, columns - 1)


@triton.jit(do_not_specialize=["bound", "rows", "limit"])
def _decode_best(
    scores, index, deltas, anchors, image_sizes, boxes, classes, valid, tallies, bound, rows, limit,
    inverse_weights, CLASSES: tl.constexpr, SLOTS: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Decode the selected boxes; the `limit` best of each class are valid."""
    image = tl.program_id(1).to(tl.int64)
    start = tl.program_id(0) * SLOTS
    slot = start + tl.arange(0, SLOTS)
    exists = slot < bound
    place = image * bound + slot
    taken = tl.load(scores + place, mask=exists, other=-1.0) >= 0
    number = tl.load(index + place, mask=exists, other=0)
    label = number % CLASSES
    better = tl.zeros([SLOTS], tl.int32)
    for first in range(0, start + SLOTS, OTHERS):
        other = first + tl.arange(0, OTHERS)
        theirs = tl.load(index + image * bound + other, mask=other < bound, other=0) % CLASSES
        before = (other[None, :] < slot[:, None]) & (theirs[None, :] == label[:, None])
        better += tl.sum(before.to(tl.int32), 1)
    admitted = taken & (better < limit)
    row = number // CLASSES
    dx, dy, dw, dh = load_four(deltas + (image * rows + row) * 4, 1, taken)
    x1, y1, x2, y2 = load_four(anchors + row * 4, 1, taken)
    x1, y1, x2, y2 = decode(dx, dy, dw, dh, x1, y1, x2, y2, inverse_weights)
    x1, y1, x2, y2 = clip_box(x1, y1, x2, y2, image_sizes + image * 2, None)
    store_four(boxes + place * 4, x1, y1, x2, y2, exists)
    tl.store(classes + place, label + 1, mask=exists)
    tl.store(valid + place, admitted.to(tl.int8), mask=exists)
    program = image * tl.num_programs(0) + tl.program_id(0)
    tally(tallies, program, taken, admitted, x1, y1, x2, y2)
