"""Pick a box head's detections: mask the scores, select the best, decode and suppress these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .candidates import MOST_BOXES, detections, new_candidates, tally
from .decode import EXACT, clip_box, decode, inverses, is_finite, load_four, store_four
from .topk import best_of_levels

__all__ = ["MOST_BOXES", "box_detections", "refine_boxes"]

_SLOTS = 128
"""The number of boxes that a program decodes."""


def box_detections(
    probabilities: Tensor,
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
    *,
    smallest_side: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what `fxtrt::box_detections` does, from the probabilities of all classes.

    Results differ from the library's on a GPU by the last bit of `exp` in decoding.

    Args:
        probabilities: (B * R, C + 1), float32.
        candidates: at most `candidates.MOST_BOXES`.
        smallest_side: what torchvision demands of a box's sides.
    """
    images, regions = proposals.shape[:2]
    columns, moves = probabilities.shape[1], deltas.shape[1] // 4
    deltas, proposals = deltas.contiguous(), proposals.float().contiguous()
    sizes, inverse_weights = image_sizes.float().contiguous(), inverses(weights)
    scores = proposals.new_empty((images, regions * columns))
    tallies = torch.empty((images, regions, 2), dtype=torch.int32, device=proposals.device)
    if images * regions:
        _mask[images * regions,](
            probabilities.contiguous(), deltas, proposals, counts, sizes, scores, tallies, regions,
            score_thresh, inverse_weights, smallest_side, COLUMNS=columns, MOVES=moves,
            PADDED_COLUMNS=triton.next_power_of_2(columns), TORCHVISION=library == "torchvision",
            num_warps=1 if columns <= 128 else 4, **EXACT,
        )  # fmt: skip
    bound = max(min(candidates, regions * (columns - 1)), 1)
    values, index = best_of_levels([scores], bound)
    found = new_candidates(values[:, 0], index[:, 0], tallies)
    _decode_best[triton.cdiv(bound, _SLOTS), images](
        found.scores, found.index, deltas, proposals, sizes, found.boxes, found.classes,
        found.valid, bound, regions, inverse_weights, COLUMNS=columns, MOVES=moves, SLOTS=_SLOTS,
        **EXACT,
    )  # fmt: skip
    return detections(found, nms_thresh, most, bound, columns)


@triton.jit(do_not_specialize=["regions"])
def _mask(
    probabilities, deltas, proposals, counts, image_sizes, scores, tallies, regions, threshold,
    inverse_weights, smallest_side, COLUMNS: tl.constexpr, MOVES: tl.constexpr,
    PADDED_COLUMNS: tl.constexpr, TORCHVISION: tl.constexpr,
):  # fmt: skip
    """Write the scores of a proposal's candidates, -1 for all other classes."""
    row = tl.program_id(0).to(tl.int64)
    image = row // regions
    column = tl.arange(0, PADDED_COLUMNS)
    exists = column < COLUMNS
    score = tl.load(probabilities + row * COLUMNS + column, mask=exists, other=0.0)
    # The background is the first column for torchvision and the last for Detectron2.
    foreground = (exists & (column > 0)) if TORCHVISION else (column < COLUMNS - 1)
    wanted = foreground & (score > threshold) & (row % regions < tl.load(counts + image))
    x1 = score
    y1 = score
    x2 = score
    y2 = score
    if tl.sum(wanted.to(tl.int32), 0) > 0:
        move = deltas + row * (4 * MOVES) + (column * 4 if MOVES > 1 else column * 0)
        dx, dy, dw, dh = load_four(move, 1, column < (MOVES if MOVES > 1 else COLUMNS))
        box = proposals + row * 4
        x1, y1, x2, y2 = decode(
            dx, dy, dw, dh, tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3),
            inverse_weights,
        )  # fmt: skip
        finite = is_finite(x1) & is_finite(y1) & is_finite(x2) & is_finite(y2)
        x1, y1, x2, y2 = clip_box(x1, y1, x2, y2, image_sizes + image * 2, None)
        if TORCHVISION:
            wanted = wanted & (x2 - x1 >= smallest_side) & (y2 - y1 >= smallest_side)
        else:  # One value that is not finite drops the whole proposal.
            finite = (finite | (column >= MOVES)) & (is_finite(score) | (column >= COLUMNS))
            all_finite = tl.min(finite.to(tl.int32), 0) + column * 0
            wanted = wanted & (all_finite > 0)
    tl.store(scores + row * COLUMNS + column, tl.where(wanted, score, -1.0), mask=exists)
    tally(tallies, row, wanted, wanted, x1, y1, x2, y2)


@triton.jit(do_not_specialize=["bound", "regions"])
def _decode_best(
    scores, index, deltas, proposals, image_sizes, boxes, classes, valid, bound, regions,
    inverse_weights, COLUMNS: tl.constexpr, MOVES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Decode the selected boxes; the index of one is its place in the image's table of scores."""
    image = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    exists = slot < bound
    place = image * bound + slot
    taken = tl.load(scores + place, mask=exists, other=-1.0) >= 0
    number = tl.load(index + place, mask=taken, other=0)
    column = number % COLUMNS
    row = image * regions + number // COLUMNS
    move = deltas + row * (4 * MOVES) + (column * 4 if MOVES > 1 else column * 0)
    dx, dy, dw, dh = load_four(move, 1, taken)
    x1, y1, x2, y2 = load_four(proposals + row * 4, 1, taken)
    x1, y1, x2, y2 = decode(dx, dy, dw, dh, x1, y1, x2, y2, inverse_weights)
    x1, y1, x2, y2 = clip_box(x1, y1, x2, y2, image_sizes + image * 2, None)
    store_four(boxes + place * 4, x1, y1, x2, y2, exists)
    tl.store(classes + place, column, mask=exists)
    tl.store(valid + place, taken.to(tl.int8), mask=exists)


def refine_boxes(
    deltas: Tensor, boxes: Tensor, image_sizes: Tensor, weights: Sequence[float]
) -> Tensor:
    """Do what `fxtrt::refine_boxes` does, in one launch."""
    refined = torch.empty(boxes.shape, dtype=torch.float32, device=boxes.device)
    rows = boxes.shape[0] * boxes.shape[1]
    if rows:
        _refine[triton.cdiv(rows, 128),](
            deltas.contiguous(), boxes.float().contiguous(), image_sizes.float().contiguous(),
            refined, rows, boxes.shape[1], inverses(weights), ROWS=128, **EXACT,
        )  # fmt: skip
    return refined


@triton.jit(do_not_specialize=["rows", "regions"])
def _refine(
    deltas, boxes, image_sizes, refined, rows, regions, inverse_weights, ROWS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < rows
    dx, dy, dw, dh = load_four(deltas + row * 4, 1, exists)
    x1, y1, x2, y2 = load_four(boxes + row * 4, 1, exists)
    x1, y1, x2, y2 = decode(dx, dy, dw, dh, x1, y1, x2, y2, inverse_weights)
    x1, y1, x2, y2 = clip_box(x1, y1, x2, y2, image_sizes + (row // regions) * 2, exists)
    store_four(refined + row * 4, x1, y1, x2, y2, exists)
