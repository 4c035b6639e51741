"""Pick an RPN's proposals in about ten launches: select, decode, suppress within levels, merge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import (
    EXACT,
    clip_box,
    decode,
    inverses,
    is_finite,
    load_anchor,
    load_deltas,
    store_four,
)
from .exponential import sigmoid
from .levels import odd, pick, pick_odd, same_layout
from .nms import MOST_BOXES, SHIFTED_BOXES, nms_sorted
from .topk import best_of_levels

__all__ = ["proposals", "takes"]


def takes(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    offset: float,
    weights: Sequence[float],
    nms_thresh: float,
    pre_nms_topk: int,
    *_: object,
) -> bool:
    """Return whether the kernels can do it; otherwise PyTorch's operators must.

    All levels have as many anchors a pixel, few enough boxes each, and no float64.
    """
    most = min(pre_nms_topk, max(m.shape[1:].numel() for m in logits))
    alike = len({m.shape[1] for m in logits}) == 1
    return alike and most <= MOST_BOXES and logits[0].element_size() <= 4


def proposals(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    offset: float,
    weights: Sequence[float],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_size: float,
    score_thresh: float,
    library: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take and return what `fxtrt::rpn_proposals` does.

    The numbers are those of the libraries on a GPU, but for two things. Equal logits of a level are
    taken by rising index, where `torch.topk` promises no order. And of more than 25,000 candidates
    in an image, torchvision counts only those that pass its filters to decide how it suppresses.
    """
    images, levels = image_sizes.shape[0], len(logits)
    largest_level = max(m.shape[1:].numel() for m in logits)
    most = min(pre_nms_topk, largest_level)
    scores, index = best_of_levels(logits, most)
    boxes = scores.new_empty((images * levels, most, 4))
    valid = torch.empty((images * levels, most), dtype=torch.int8, device=scores.device)
    largest = scores.new_zeros(images)
    limit = min(most, post_nms_topk)
    if images == 0 or limit == 0:
        return _merged(boxes, scores, index[:, :, :0].flatten(0, 1), largest, post_nms_topk)
    maps, channels_last = same_layout(deltas)
    _decode_best[triton.cdiv(most, 128), images * levels](
        maps, torch.cat(list(cell_anchors)).float(), image_sizes.float().contiguous(), index,
        scores, boxes, valid, largest.view(torch.int32),
        odd(m.shape[2:].numel() for m in logits), odd(m.shape[3] for m in logits),
        odd(strides[::2]), odd(strides[1::2]), inverses(weights), most, min_size, score_thresh,
        ANCHORS=logits[0].shape[1], OFFSET=float(offset), CHANNELS_LAST=channels_last,
        TORCHVISION=library == "torchvision", SLOTS=128, **EXACT,
    )  # fmt: skip
    shifted = levels > 1 and levels * most <= SHIFTED_BOXES
    kept, counts = nms_sorted(
        boxes, valid, nms_thresh, limit, largest=largest if shifted else None, levels=levels
    )
    return _merged(boxes, scores, kept, counts, post_nms_topk)


@triton.jit(do_not_specialize=["most"])
def _decode_best(
    maps, cell_anchors, image_sizes, index, scores, boxes, valid, largest,
    pixels_of_levels, widths, verticals, horizontals, inverse_weights, most, min_size, score_thresh,
    ANCHORS: tl.constexpr, OFFSET: tl.constexpr, CHANNELS_LAST: tl.constexpr,
    TORCHVISION: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Decode, clip and judge the selected anchors; find each image's largest valid coordinate."""
    row = tl.program_id(1)
    image = row // len(maps)
    level = row % len(maps)
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    pixels = pick_odd(pixels_of_levels, level)
    exists = slot < tl.minimum(most, pixels * ANCHORS)
    place = row.to(tl.int64) * most + slot
    number = tl.load(index + place, mask=exists, other=0)
    anchor = number % ANCHORS
    pixel = number // ANCHORS
    width = pick_odd(widths, level)
    ax1, ay1, ax2, ay2 = load_anchor(
        cell_anchors, level * ANCHORS + anchor, pixel % width, pixel // width,
        pick_odd(horizontals, level), pick_odd(verticals, level), exists, OFFSET,
    )  # fmt: skip
    base = pick(maps, level) + image.to(tl.int64) * pixels * (4 * ANCHORS)
    dx, dy, dw, dh = load_deltas(base, pixel, anchor, pixels, exists, ANCHORS, CHANNELS_LAST)
    x1, y1, x2, y2 = decode(dx, dy, dw, dh, ax1, ay1, ax2, ay2, inverse_weights)
    score = tl.load(scores + place, mask=exists, other=0.0)
    finite = is_finite(x1) & is_finite(y1) & is_finite(x2) & is_finite(y2) & is_finite(score)
    x1, y1, x2, y2 = clip_box(x1, y1, x2, y2, image_sizes + image * 2, None)
    if TORCHVISION:
        score = sigmoid(score)
        tl.store(scores + place, score, mask=exists)
        passed = (x2 - x1 >= min_size) & (y2 - y1 >= min_size) & (score >= score_thresh)
    else:
        passed = (x2 - x1 > min_size) & (y2 - y1 > min_size) & finite
    passed = passed & exists
    store_four(boxes + place * 4, x1, y1, x2, y2, slot < most)
    tl.store(valid + place, passed.to(tl.int8), mask=slot < most)
    # Coordinates are not negative, so their patterns order as integers.
    most_right = tl.max(tl.where(passed, tl.maximum(x2, y2), 0.0), 0)
    tl.atomic_max(largest + image, most_right.to(tl.int32, bitcast=True), sem="relaxed")


def _merged(
    boxes: Tensor, scores: Tensor, kept: Tensor, counts: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best boxes that were kept of all levels of each image, and pad them."""
    images, levels, length = scores.shape
    limit = kept.shape[1]
    merged = scores.new_zeros((images, most, 4))
    merged_scores = scores.new_zeros((images, most))
    merged_counts = torch.zeros(images, dtype=torch.int32, device=scores.device)
    if images and limit:
        _merge[triton.cdiv(levels * limit, 128), images](
            boxes, scores, kept, counts, merged, merged_scores, merged_counts, length, limit, most,
            LEVELS=levels, STEPS=limit.bit_length(), SLOTS=128, **EXACT,
        )  # fmt: skip
    return merged, merged_scores, merged_counts


@triton.jit
def _score_of(scores, kept, row, length, limit, slot, mask):
    """Return the scores of a level's kept boxes number `slot`."""
    box = tl.load(kept + row * limit + slot, mask=mask, other=0)
    return tl.load(scores + row * length + box, mask=mask, other=0.0), box


@triton.jit(do_not_specialize=["length", "limit", "most"])
def _merge(
    boxes, scores, kept, counts, merged, merged_scores, merged_counts, length, limit, most,
    LEVELS: tl.constexpr, STEPS: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Find each kept box's place among those of all levels; equal scores go by rising level."""
    image = tl.program_id(1)
    entry = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    level = entry // limit
    slot = entry % limit
    row = (image * LEVELS + level).to(tl.int64)
    exists = level < LEVELS
    exists = exists & (slot < tl.load(counts + row, mask=exists, other=0))
    score, box = _score_of(scores, kept, row, length, limit, slot, exists)
    rank = slot
    total = image * 0
    for other in tl.static_range(LEVELS):
        other_row = (image * LEVELS + other).to(tl.int64)
        count = tl.load(counts + other_row)
        total += count
        ahead = tl.zeros([SLOTS], tl.int32)
        for step in tl.static_range(STEPS):
            probe = ahead + (1 << (STEPS - 1 - step))
            there = exists & (probe <= count)
            theirs, _ = _score_of(scores, kept, other_row, length, limit, probe - 1, there)
            better = there & ((theirs > score) | ((theirs == score) & (other < level)))
            ahead = tl.where(better, probe, ahead)
        rank += tl.where(level == other, 0, ahead)
    taken = exists & (rank < most)
    source = boxes + (row * length + box) * 4
    target = image.to(tl.int64) * most + rank
    for i in tl.static_range(4):
        side = tl.load(source + i, mask=taken, other=0.0)
        tl.store(merged + target * 4 + i, side, mask=taken)
    tl.store(merged_scores + target, score, mask=taken)
    if tl.program_id(0) == 0:
        tl.store(merged_counts + image, tl.minimum(total, most))
