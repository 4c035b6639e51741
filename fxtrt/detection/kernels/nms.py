"""Exact greedy non-maximum suppression of sorted boxes, for many problems at once.

One launch compares all pairs of a problem, a tile of 64 by 64 a program, and writes a bit for each
pair. Another walks through the boxes with one program for each problem, 64 at a time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT

__all__ = ["MOST_BOXES", "SHIFTED_BOXES", "nms_sorted"]

MOST_BOXES = 8192
"""The most boxes of a problem: a program keeps a bit for each of them, and a row of bits for 64."""
SHIFTED_BOXES = 25_000
"""Up to as many boxes torchvision's `batched_nms` shifts on a GPU instead of taking them apart."""


def nms_sorted(
    boxes: Tensor,
    valid: Tensor,
    iou_threshold: float,
    most: int,
    *,
    groups: Tensor | None = None,
    counts: Tensor | None = None,
    largest: Tensor | None = None,
    levels: int = 1,
) -> tuple[Tensor, Tensor]:
    """Keep the first `most` boxes that no better one of their group overlaps too much.

    It waits for nothing and can be recorded in a CUDA graph. An overlap is too much if its IoU is
    greater than the threshold, which is rounded to float32, as in torchvision's CUDA kernel.

    Args:
        boxes: (P, N, 4), float32, those of each problem by falling score; N up to `MOST_BOXES`.
        valid: (P, N), bool or int8. The other boxes are never kept and suppress nothing.
        groups: (P, N), int32, the class of each box. Without it a problem is one group.
        counts: (P,), int32: boxes from here on are not valid, whatever `valid` says.
        largest: (P // levels,), float32, the largest coordinate of each image. With it, boxes are
            shifted before they are compared by their group, or without groups by the number of
            their level, times this + 1. torchvision's `batched_nms` shifts them like this while
            there are at most 25,000 on a GPU (1,000 on the CPU), and rounds by that.
        levels: problem p is level p % levels of image p // levels.

    Returns:
        (P, most) int32 indices, rising, -1 from the problem's count on; and (P,) int32 counts.
    """
    problems, length = boxes.shape[:2]
    if length > MOST_BOXES:
        raise ValueError(f"{length} boxes in one problem of NMS; the kernel takes {MOST_BOXES}")
    device = boxes.device
    kept = torch.empty((problems, most), dtype=torch.int32, device=device)
    kept_counts = torch.empty(problems, dtype=torch.int32, device=device)
    if problems == 0:
        return kept, kept_counts
    words = triton.cdiv(length, 64)
    overlaps = torch.empty((problems, length, words), dtype=torch.int64, device=device)
    unused = kept_counts  # Stands in for pointers that a kernel does not read.
    ends = unused if counts is None else counts
    if words:
        _compare[words, words, problems](
            boxes.contiguous(), unused if groups is None else groups.contiguous(), ends,
            unused if largest is None else largest, overlaps, length, words, float(iou_threshold),
            HAS_GROUPS=groups is not None, HAS_COUNTS=counts is not None,
            HAS_LARGEST=largest is not None, LEVELS=levels, num_warps=8, **EXACT,
        )  # fmt: skip
    _suppress[problems,](
        overlaps, valid.contiguous().view(torch.int8), ends, kept, kept_counts, length, words, most,
        HAS_COUNTS=counts is not None, WORDS=triton.next_power_of_2(max(words, 1)),
        MOST=triton.next_power_of_2(max(most, 1)), num_warps=4, **EXACT,
    )  # fmt: skip
    return kept, kept_counts


@triton.jit
def _sides(boxes, place, exists, shift):
    x1 = tl.load(boxes + place * 4, mask=exists, other=0.0) + shift
    y1 = tl.load(boxes + place * 4 + 1, mask=exists, other=0.0) + shift
    x2 = tl.load(boxes + place * 4 + 2, mask=exists, other=0.0) + shift
    y2 = tl.load(boxes + place * 4 + 3, mask=exists, other=0.0) + shift
    return x1, y1, x2, y2, (x2 - x1) * (y2 - y1)


@triton.jit(do_not_specialize=["length", "words"])
def _compare(
    boxes, groups, counts, largest, overlaps, length, words, threshold,
    HAS_GROUPS: tl.constexpr, HAS_COUNTS: tl.constexpr, HAS_LARGEST: tl.constexpr,
    LEVELS: tl.constexpr,
):  # fmt: skip
    """Set bit j of word w of box i if box 64 * w + j comes before and overlaps it too much."""
    tile = tl.program_id(0)
    word = tl.program_id(1)
    problem = tl.program_id(2).to(tl.int64)
    needed = word <= tile
    if HAS_COUNTS:
        needed = needed & (tile * 64 < tl.load(counts + problem))
    if needed:
        i = tile * 64 + tl.arange(0, 64)
        j = word * 64 + tl.arange(0, 64)
        group_i = i * 0
        group_j = j * 0
        if HAS_GROUPS:
            group_i = tl.load(groups + problem * length + i, mask=i < length, other=0)
            group_j = tl.load(groups + problem * length + j, mask=j < length, other=0)
        shift_i = 0.0
        shift_j = 0.0
        if HAS_LARGEST:
            span = tl.load(largest + problem // LEVELS) + 1.0
            level = (problem % LEVELS).to(tl.float32)
            shift_i = (group_i.to(tl.float32) if HAS_GROUPS else level) * span
            shift_j = (group_j.to(tl.float32) if HAS_GROUPS else level) * span
        ix1, iy1, ix2, iy2, area_i = _sides(boxes, problem * length + i, i < length, shift_i)
        jx1, jy1, jx2, jy2, area_j = _sides(boxes, problem * length + j, j < length, shift_j)
        width = tl.minimum(ix2[:, None], jx2[None, :]) - tl.maximum(ix1[:, None], jx1[None, :])
        height = tl.minimum(iy2[:, None], jy2[None, :]) - tl.maximum(iy1[:, None], jy1[None, :])
        shared = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
        # "/" is approximate, torchvision's division is not.
        iou = tl.div_rn(shared, area_j[None, :] + area_i[:, None] - shared)
        over = (iou > threshold) & (j[None, :] < i[:, None])
        if HAS_GROUPS:
            over = over & (group_i[:, None] == group_j[None, :])
        bits = tl.where(over, _powers()[None, :], 0)
        place = overlaps + (problem * length + i) * words + word
        tl.store(place, tl.sum(bits, 1), mask=i < length)


@triton.jit
def _powers():
    return (tl.zeros([64], tl.int64) + 1) << tl.arange(0, 64).to(tl.int64)


@triton.jit
def _pack(flags):
    """Return 64 flags as the bits of one integer."""
    return tl.sum(tl.where(flags, _powers(), 0), 0)


@triton.jit
def _settle(candidates, overlaps):
    """Return the bits of the boxes that are kept among 64 candidates.

    A box is kept if no kept one overlaps it. From all candidates on, this is applied until nothing
    changes: the first k boxes are right after k rounds, and few rounds are needed as a rule.
    """
    kept = _pack(candidates)
    changed = kept != 0
    while changed:
        next_kept = _pack(candidates & ((overlaps & kept) == 0))
        changed = next_kept != kept
        kept = next_kept
    return kept


@triton.jit
def _read_block(overlaps, valid, block, end, words, WORDS: tl.constexpr):
    """Return the overlaps of 64 boxes with all earlier blocks, and within the block; the valid."""
    box = block * 64 + tl.arange(0, 64)
    word = tl.arange(0, WORDS)
    exists = box < end
    row = overlaps + box.to(tl.int64) * words
    earlier = exists[:, None] & (word[None, :] < block)
    others = tl.load(row[:, None] + word[None, :], mask=earlier, other=0)
    within = tl.load(row + block, mask=exists, other=0)
    return others, within, tl.load(valid + box, mask=exists, other=0) != 0


@triton.jit(do_not_specialize=["length", "words", "most"])
def _suppress(
    overlaps, valid, counts, kept, kept_counts, length, words, most, HAS_COUNTS: tl.constexpr,
    WORDS: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Walk through the boxes of a problem by 64, until enough are kept."""
    problem = tl.program_id(0).to(tl.int64)
    end = length
    if HAS_COUNTS:
        end = tl.minimum(length, tl.load(counts + problem))
    lane = tl.arange(0, 64)
    word = tl.arange(0, WORDS)
    kept_bits = tl.zeros([WORDS], tl.int64)
    count = end * 0
    block = end * 0
    blocks = (end + 63) // 64
    base = overlaps + problem * length * words
    others, within, is_valid = _read_block(base, valid + problem * length, block, end, words, WORDS)
    while (block < blocks) & (count < most):
        hit = tl.max(((others & kept_bits[None, :]) != 0).to(tl.int32), 1)
        candidates = is_valid & (hit == 0)
        among = within
        # What the next round reads depends on nothing, so it is on its way while this one settles.
        others, within, is_valid = _read_block(
            base, valid + problem * length, block + 1, end, words, WORDS
        )
        bits = _settle(candidates, among)
        kept_bits = tl.where(word == block, bits, kept_bits)
        flags = ((bits >> lane.to(tl.int64)) & 1).to(tl.int32)
        slot = count + tl.cumsum(flags, 0) - flags
        target = kept + problem * most + slot
        tl.store(target, block * 64 + lane, mask=(flags == 1) & (slot < most))
        count += tl.sum(flags, 0)
        block += 1
    count = tl.minimum(count, most)
    slot = tl.arange(0, MOST)
    tl.store(kept + problem * most + slot, slot * 0 - 1, mask=(slot >= count) & (slot < most))
    tl.store(kept_counts + problem, count)
