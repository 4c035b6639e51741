"""Order the candidates of each image, suppress within classes, and write the detections.

A head's own kernel appends what scores above the threshold to an image's list, in any order, up to
the list's capacity. Each candidate has a key of 64 bits, unique in its image: the score's pattern
above the inverted index. The place of a candidate is the number of greater keys, which one launch
counts; so equal scores go by rising index, as in a stable sort, and each run gives the same result.

What is left out cannot change the result unless the certificate says so. Greedy suppression decides
about a box from better ones only. So if a list holds all candidates, and either all that its limits
admit are suppressed or enough are kept among the best `bound`, the result is the unbounded one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decode import EXACT
from .nms import MOST_BOXES, nms_sorted

__all__ = [
    "MOST_BOXES",
    "Candidates",
    "append",
    "detections",
    "length_of",
    "new_candidates",
    "reserve",
]

_LISTED = 16
"""How many candidates a list holds for each one that suppression looks at."""
_TALLIES = tl.constexpr(4)
_PROGRAMS = 256
"""How many programs share the list of an image; most lists are far from full."""
_SHIFTED_BOXES = 25_000
"""Up to as many boxes torchvision's `batched_nms` shifts on a GPU instead of taking them apart."""


@dataclass(frozen=True)
class Candidates:
    """The lists of all images, of the capacity N.

    keys: (B, N), int64. boxes: (B, N, 4), float32. classes: (B, N), int32. groups: (B, N), int32,
    the level or class whose best alone are admitted. bound: how many of the best may take part in
    suppression. tallies: (B, 4), int64: how many candidates there were, how many are admitted, the
    `_order` of the largest coordinate of those, and how many entries another list of the same
    capacity had, if candidates were made from one.
    """

    keys: Tensor
    boxes: Tensor
    classes: Tensor
    groups: Tensor
    tallies: Tensor
    bound: int


def new_candidates(images: int, scores: int, bound: int, device: torch.device) -> Candidates:
    """Allocate empty lists for images of as many scores; `bound` is at most `MOST_BOXES`."""
    bound = max(min(bound, scores), 1)
    shape = (images, min(_LISTED * bound, max(scores, 1)))
    return Candidates(
        keys=torch.empty(shape, dtype=torch.int64, device=device),
        boxes=torch.empty((*shape, 4), dtype=torch.float32, device=device),
        classes=torch.empty(shape, dtype=torch.int32, device=device),
        groups=torch.empty(shape, dtype=torch.int32, device=device),
        tallies=torch.zeros((images, _TALLIES.value), dtype=torch.int64, device=device),
        bound=bound,
    )


@triton.jit
def reserve(tallies, TALLY: tl.constexpr, image, wanted, capacity):
    """Count entries in a tally of their images; return their places, and which fit in the list.

    Args:
        image: int64, nearly always the same for all lanes: one addition then serves them all.
        wanted: which lanes hold an entry.
    """
    first = tl.min(image, 0)
    together = (wanted & (image == first)).to(tl.int32)
    tally = tallies + first * _TALLIES + TALLY
    start = tl.atomic_add(tally, tl.sum(together, 0).to(tl.int64), sem="relaxed")
    apart = wanted & (image != first)
    tally = tallies + image * _TALLIES + TALLY
    slot = tl.atomic_add(tally, image * 0 + 1, mask=apart, sem="relaxed")
    slot = tl.where(apart, slot, start + tl.cumsum(together, 0) - together)
    return image * capacity + slot, wanted & (slot < capacity)


@triton.jit
def append(keys, tallies, image, score, index, wanted, capacity):
    """Add candidates to the lists of their images; return their places and which have one.

    Args:
        image: int64, as for `reserve`.
        score: float32, not negative.
        index: unique in the image.
        wanted: which lanes hold a candidate.
    """
    place, fits = reserve(tallies, 0, image, wanted, capacity)
    key = (score.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (0x7FFFFFFF - index.to(tl.int64))
    tl.store(keys + place, key, mask=fits)
    return place, fits


def detections(
    candidates: Candidates, iou_threshold: float, most: int, limit: int | None, classes_of_row: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Suppress within classes and keep the best of each image.

    Args:
        limit: how many of the best of each group are admitted; None admits all.
        classes_of_row: what an index is divided by to get the row of a detection.

    Returns:
        (B, most, 4) boxes, (B, most) scores, classes and rows, (B,) counts and (B,) overflow, as
        `fxtrt::box_detections` does.
    """
    images, device = len(candidates.tallies), candidates.tallies.device
    capacity, bound = candidates.keys.shape[1], candidates.bound
    admitted = torch.empty_like(candidates.keys)
    grid = (min(triton.cdiv(capacity, 32), _PROGRAMS), images)
    _admit[grid](
        candidates.keys, candidates.boxes, candidates.groups, candidates.tallies, admitted,
        capacity, capacity if limit is None else limit, LIMITED=limit is not None, SLOTS=32,
        OTHERS=128, **EXACT,
    )  # fmt: skip
    keys = torch.empty((images, bound), dtype=torch.int64, device=device)
    boxes = torch.empty((images, bound, 4), dtype=torch.float32, device=device)
    classes = torch.empty((images, bound), dtype=torch.int32, device=device)
    valid = torch.empty((images, bound), dtype=torch.int8, device=device)
    counts = torch.empty(images, dtype=torch.int32, device=device)
    largest = torch.empty(images, dtype=torch.float32, device=device)
    _place[grid](
        admitted, candidates.boxes, candidates.classes, candidates.tallies, keys, boxes, classes,
        valid, counts, largest, capacity, bound, SHIFTED=_SHIFTED_BOXES, SLOTS=32,
        OTHERS=128, **EXACT,
    )  # fmt: skip
    kept, kept_counts = nms_sorted(
        boxes, valid, iou_threshold, most, groups=classes, counts=counts, largest=largest
    )
    found = _Found.allocate(images, most, device)
    _write[images,](
        kept, kept_counts, keys, boxes, classes, candidates.tallies, found.boxes, found.scores,
        found.classes, found.rows, found.overflow.view(torch.int8), capacity, bound, most,
        classes_of_row, MOST=triton.next_power_of_2(max(most, 1)), **EXACT,
    )  # fmt: skip
    return found.boxes, found.scores, found.classes, found.rows, kept_counts, found.overflow


@dataclass(frozen=True)
class _Found:
    boxes: Tensor
    scores: Tensor
    classes: Tensor
    rows: Tensor
    overflow: Tensor

    @classmethod
    def allocate(cls, images: int, most: int, device: torch.device) -> _Found:
        return cls(
            torch.empty((images, most, 4), dtype=torch.float32, device=device),
            torch.empty((images, most), dtype=torch.float32, device=device),
            torch.empty((images, most), dtype=torch.int64, device=device),
            torch.empty((images, most), dtype=torch.int64, device=device),
            torch.empty(images, dtype=torch.bool, device=device),
        )


@triton.jit
def _order(x):
    """Return a positive int64 that orders as float32 does, NaN above all."""
    pattern = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    key = tl.where(pattern >= 0, pattern, pattern ^ 0x7FFFFFFF)
    return tl.where(x != x, 0x7FC00000, key).to(tl.int64) + 0x80000000


@triton.jit
def _from_order(order):
    """Return the float32 whose `_order` is given."""
    key = (order - 0x80000000).to(tl.int32)
    return tl.where(key >= 0, key, key ^ 0x7FFFFFFF).to(tl.float32, bitcast=True)


@triton.jit
def length_of(tallies, TALLY: tl.constexpr, image, capacity):
    """Return how many entries the list has that a tally counts."""
    return tl.minimum(tl.load(tallies + image * _TALLIES + TALLY), capacity).to(tl.int32)


@triton.jit(do_not_specialize=["capacity", "limit"])
def _admit(
    keys, boxes, groups, tallies, admitted, capacity, limit, LIMITED: tl.constexpr,
    SLOTS: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """Copy the keys of the `limit` best of each group, -1 for others; count them.

    Also find the largest coordinate of their boxes, which NMS shifts classes by.
    """
    image = tl.program_id(1)
    length = length_of(tallies, 0, image, capacity)
    base = image.to(tl.int64) * capacity
    for start in range(tl.program_id(0) * SLOTS, length, tl.num_programs(0) * SLOTS):
        slot = start + tl.arange(0, SLOTS)
        taken = slot < length
        key = tl.load(keys + base + slot, mask=taken, other=0)
        if LIMITED:
            group = tl.load(groups + base + slot, mask=taken, other=0)
            place = tl.zeros([SLOTS], tl.int32)
            for first in range(0, length, OTHERS):
                other = first + tl.arange(0, OTHERS)
                theirs = tl.load(keys + base + other, mask=other < length, other=-1)
                their_group = tl.load(groups + base + other, mask=other < length, other=0)
                better = (theirs[None, :] > key[:, None]) & (their_group[None, :] == group[:, None])
                place += tl.sum(better.to(tl.int32), 1)
            taken = taken & (place < limit)
        tl.store(admitted + base + slot, tl.where(taken, key, -1), mask=slot < length)
        tally = tallies + image * _TALLIES
        tl.atomic_add(tally + 1, tl.sum(taken.to(tl.int32), 0).to(tl.int64), sem="relaxed")
        side = tl.arange(0, 4)
        there = taken[:, None] & (side[None, :] >= 0)
        sides = tl.load(boxes + (base + slot)[:, None] * 4 + side[None, :], mask=there, other=0.0)
        order = tl.where(there, _order(sides), 0)
        tl.atomic_max(tally + 2, tl.max(tl.max(order, 1), 0), sem="relaxed")


@triton.jit(do_not_specialize=["capacity", "bound"])
def _place(
    admitted, boxes, classes, tallies, keys_out, boxes_out, classes_out, valid_out, counts_out,
    largest_out, capacity, bound, SHIFTED: tl.constexpr, SLOTS: tl.constexpr,
    OTHERS: tl.constexpr,
):  # fmt: skip
    """Write the `bound` best admitted candidates of an image by falling key."""
    image = tl.program_id(1)
    length = length_of(tallies, 0, image, capacity)
    base = image.to(tl.int64) * capacity
    for start in range(tl.program_id(0) * SLOTS, length, tl.num_programs(0) * SLOTS):
        slot = start + tl.arange(0, SLOTS)
        key = tl.load(admitted + base + slot, mask=slot < length, other=-1)
        rank = tl.zeros([SLOTS], tl.int32)
        for first in range(0, length, OTHERS):
            other = first + tl.arange(0, OTHERS)
            theirs = tl.load(admitted + base + other, mask=other < length, other=-1)
            rank += tl.sum((theirs[None, :] > key[:, None]).to(tl.int32), 1)
        taken = (key >= 0) & (rank < bound)
        target = image.to(tl.int64) * bound + rank
        tl.store(keys_out + target, key, mask=taken)
        tl.store(valid_out + target, taken.to(tl.int8), mask=taken)
        label = tl.load(classes + base + slot, mask=taken, other=0)
        tl.store(classes_out + target, label, mask=taken)
        for side in tl.static_range(4):
            value = tl.load(boxes + (base + slot) * 4 + side, mask=taken, other=0.0)
            tl.store(boxes_out + target * 4 + side, value, mask=taken)
    if tl.program_id(0) == 0:
        total = tl.load(tallies + image * _TALLIES + 1)
        tl.store(counts_out + image, tl.minimum(total, bound).to(tl.int32))
        # With -1, classes are shifted by nothing; boxes of different ones are not compared anyway.
        span = tl.where(total > SHIFTED, -1.0, _from_order(tl.load(tallies + image * _TALLIES + 2)))
        tl.store(largest_out + image, span)


@triton.jit(do_not_specialize=["capacity", "bound", "most", "classes_of_row"])
def _write(
    kept, kept_counts, keys, boxes, classes, tallies, boxes_out, scores_out, classes_out,
    rows_out, overflow_out, capacity, bound, most, classes_of_row, MOST: tl.constexpr,
):  # fmt: skip
    """Copy what is kept, pad it, and tell whether a limit could have changed it."""
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
    key = tl.load(keys + source, mask=live, other=0)
    score = (key >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    tl.store(scores_out + target, score, mask=exists)
    label = tl.load(classes + source, mask=live, other=-1)
    tl.store(classes_out + target, label.to(tl.int64), mask=exists)
    row = (0x7FFFFFFF - (key & 0x7FFFFFFF)) // classes_of_row
    tl.store(rows_out + target, tl.where(live, row, -1), mask=exists)
    tally = tallies + image * _TALLIES
    unseen = (tl.load(tally + 1) > bound) & (count < most)
    overflow = unseen | (tl.load(tally) > capacity) | (tl.load(tally + 3) > capacity)
    tl.store(overflow_out + image, overflow.to(tl.int8))
