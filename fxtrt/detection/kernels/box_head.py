"""Find a box head's candidates: decode the classes above the threshold of each proposal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .candidates import MOST_BOXES, append, detections, new_candidates
from .decode import EXACT, clip, decode, inverses, is_finite

__all__ = ["MOST_BOXES", "box_detections", "refine_boxes"]


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
    listed = new_candidates(images, regions * (columns - 1), candidates, proposals.device)
    if images * regions:
        _collect[images * regions,](
            probabilities.contiguous(), deltas.contiguous(), proposals.float().contiguous(), counts,
            image_sizes.float().contiguous(), listed.keys, listed.boxes, listed.classes,
            listed.tallies, regions, listed.keys.shape[1], score_thresh, inverses(weights),
            smallest_side, COLUMNS=columns, MOVES=moves,
            PADDED_COLUMNS=triton.next_power_of_2(columns), TORCHVISION=library == "torchvision",
            num_warps=1 if columns <= 128 else 4, **EXACT,
        )  # fmt: skip
    return detections(listed, nms_thresh, most, None, columns)


@triton.jit
def _four(base, mask):
    """Load four neighbours as float32."""
    return (
        tl.load(base, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 1, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 2, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 3, mask=mask, other=0.0).to(tl.float32),
    )


@triton.jit
def _store_four(base, x1, y1, x2, y2, mask):
    tl.store(base, x1, mask=mask)
    tl.store(base + 1, y1, mask=mask)
    tl.store(base + 2, x2, mask=mask)
    tl.store(base + 3, y2, mask=mask)


@triton.jit
def _decode(deltas, mask, box, inverse_weights):
    """Decode all boxes of a proposal, which lies at `box`."""
    dx, dy, dw, dh = _four(deltas, mask)
    x1, y1, x2, y2 = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    return decode(dx, dy, dw, dh, x1, y1, x2, y2, inverse_weights)


@triton.jit
def _clip(x1, y1, x2, y2, size, mask):
    """Limit boxes to the height and the width that lie at `size`."""
    height = tl.load(size, mask=mask)
    width = tl.load(size + 1, mask=mask)
    return clip(x1, width), clip(y1, height), clip(x2, width), clip(y2, height)


@triton.jit(do_not_specialize=["regions", "capacity"])
def _collect(
    probabilities, deltas, proposals, counts, image_sizes, keys, boxes, classes, tallies, regions,
    capacity, threshold, inverse_weights, smallest_side, COLUMNS: tl.constexpr,
    MOVES: tl.constexpr, PADDED_COLUMNS: tl.constexpr, TORCHVISION: tl.constexpr,
):  # fmt: skip
    """Append the candidates of a proposal; the index of one is its place in the image's table."""
    row = tl.program_id(0).to(tl.int64)
    image = row // regions
    column = tl.arange(0, PADDED_COLUMNS)
    exists = column < COLUMNS
    score = tl.load(probabilities + row * COLUMNS + column, mask=exists, other=0.0)
    # The background is the first column for torchvision and the last for Detectron2.
    foreground = (exists & (column > 0)) if TORCHVISION else (column < COLUMNS - 1)
    region = row % regions + column * 0
    wanted = foreground & (score > threshold) & (region < tl.load(counts + image))
    if tl.sum(wanted.to(tl.int32), 0) > 0:
        move = deltas + row * (4 * MOVES) + (column * 4 if MOVES > 1 else column * 0)
        x1, y1, x2, y2 = _decode(
            move, column < (MOVES if MOVES > 1 else COLUMNS), proposals + row * 4, inverse_weights
        )
        finite = is_finite(x1) & is_finite(y1) & is_finite(x2) & is_finite(y2)
        x1, y1, x2, y2 = _clip(x1, y1, x2, y2, image_sizes + image * 2, None)
        if TORCHVISION:
            wanted = wanted & (x2 - x1 >= smallest_side) & (y2 - y1 >= smallest_side)
        else:  # One value that is not finite drops the whole proposal.
            finite = (finite | (column >= MOVES)) & (is_finite(score) | (column >= COLUMNS))
            all_finite = tl.min(finite.to(tl.int32), 0) + column * 0
            wanted = wanted & (all_finite > 0)
        index = region * COLUMNS + column
        place, fits = append(keys, tallies, image + column * 0, score, index, wanted, capacity)
        tl.store(classes + place, column, mask=fits)
        _store_four(boxes + place * 4, x1, y1, x2, y2, fits)


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
    dx, dy, dw, dh = _four(deltas + row * 4, exists)
    x1, y1, x2, y2 = _four(boxes + row * 4, exists)
    x1, y1, x2, y2 = decode(dx, dy, dw, dh, x1, y1, x2, y2, inverse_weights)
    x1, y1, x2, y2 = _clip(x1, y1, x2, y2, image_sizes + (row // regions) * 2, exists)
    _store_four(refined + row * 4, x1, y1, x2, y2, exists)
