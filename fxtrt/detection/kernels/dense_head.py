"""Find the candidates of a one-stage detector: read each score once, decode the few that count.

One launch reads the logits of all levels as they lie in memory and lists those that can pass the
threshold. Another computes the scores of these and decodes their boxes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dense_rules import DenseRules
from .candidates import (
    MOST_BOXES,
    Candidates,
    append,
    detections,
    length_of,
    new_candidates,
    reserve,
)
from .decode import EXACT, clip, decode, inverses
from .exponential import sigmoid
from .levels import odd, pick, pick_odd, same_layout

__all__ = ["MOST_BOXES", "dense_detections", "table_detections", "takes"]

_BLOCK = 2048
"""How many logits a program reads."""
_GROUP = tl.constexpr(8)
"""Whole groups of so many logits are read together, which lets loads be wide; then the rest."""
_LISTED = tl.constexpr(3)
"""The tally of the list of logits."""
_SLOTS = 128
"""How many listed logits a program decodes at once."""
_PROGRAMS = 128
"""How many programs share the list of an image."""


def takes(logits: Sequence[Tensor], cell_anchors: Sequence[Tensor]) -> bool:
    """Return whether all levels have as many anchors and one dtype, as `dense_detections` needs."""
    levels = zip(logits, cell_anchors, strict=True)
    return len({(maps.dtype, maps.shape[1], len(cells)) for maps, cells in levels}) == 1


def dense_detections(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    centerness: Sequence[Tensor],
    cell_anchors: Sequence[Tensor],
    image_sizes: Tensor,
    strides: Sequence[int],
    rules: DenseRules,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what `fxtrt::dense_detections` does for RetinaNet and FCOS; rows come with it.

    Equal scores of a level are taken by rising index. Otherwise results differ from the library's
    on a GPU by the last bit of `exp`, and where boxes are not finite.
    """
    sizes = [level[0].numel() for level in logits]
    bound = min(rules.candidates, sum(min(size, rules.topk) for size in sizes))
    found = new_candidates(len(image_sizes), sum(sizes), bound, image_sizes.device)
    listed = _list(logits, found, _lowest_logit(rules), background=False)
    if found.keys.numel():
        moves, moves_last = same_layout(deltas)
        # Centerness has a channel for each anchor, which makes it far smaller than the others.
        centres = tuple(level.contiguous() for level in centerness) or moves
        _decode_listed[_grid(found)](
            listed, moves, centres, torch.cat(list(cell_anchors)).float(),
            image_sizes.float().contiguous(), found.keys, found.boxes, found.classes, found.groups,
            found.tallies, found.keys.shape[1], odd(sizes), odd(m[0, 0].numel() for m in logits),
            odd(m.shape[3] for m in logits), odd(strides[::2]), odd(strides[1::2]),
            rules.score_thresh, inverses(rules.weights), ANCHORS=len(cell_anchors[0]),
            CLASSES=logits[0].shape[1] // len(cell_anchors[0]), OFFSET=float(rules.offset),
            MOVES_LAST=moves_last, CENTERNESS=len(centerness) > 0, LINEAR=rules.head == "fcos",
            TORCHVISION=rules.library == "torchvision", SLOTS=_SLOTS, **EXACT,
        )  # fmt: skip
    return detections(found, rules.nms_thresh, rules.most, rules.topk, 1)


def table_detections(
    probabilities: Tensor, deltas: Tensor, anchors: Tensor, image_sizes: Tensor, rules: DenseRules
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Do what `fxtrt::dense_detections` does for SSD.

    Args:
        probabilities: (B, N, K), float32; the first class is the background.
        deltas: (B, N, 4), float32.
        anchors: (N, 4), float32.
    """
    images, rows, columns = probabilities.shape
    bound = min(rules.candidates, (columns - 1) * min(rows, rules.topk))
    found = new_candidates(images, rows * (columns - 1), bound, image_sizes.device)
    table = probabilities.transpose(1, 2)[..., None]
    listed = _list([table], found, rules.score_thresh, background=True)
    if found.keys.numel():
        _decode_table[_grid(found)](
            listed, deltas.contiguous(), anchors.contiguous(), image_sizes.float().contiguous(),
            found.keys, found.boxes, found.classes, found.groups, found.tallies,
            found.keys.shape[1], rows, columns, rules.score_thresh, inverses(rules.weights),
            SLOTS=_SLOTS, **EXACT,
        )  # fmt: skip
    return detections(found, rules.nms_thresh, rules.most, rules.topk, columns)


def _grid(found: Candidates) -> tuple[int, int]:
    return min(triton.cdiv(found.keys.shape[1], _SLOTS), _PROGRAMS), len(found.keys)


def _list(logits: Sequence[Tensor], found: Candidates, lowest: float, background: bool) -> Tensor:
    """List what is at least `lowest`, in any order.

    Args:
        logits: (B, channels, height, width) of each level.
        found: candidates, whose list has the same capacity and whose tallies count this one too.
        background: leave the first channel out.

    Returns:
        (B, N), int64: the pattern of the float32 logit above its index in the image's table of
        levels, pixels and channels.
    """
    listed = torch.empty_like(found.keys)
    maps, channels_last = same_layout(logits)
    blocks = sum(triton.cdiv(m.numel(), _BLOCK) for m in maps)
    if blocks:
        # With few registers many programs read at once; what does not fit is rarely needed.
        _list_logits[blocks,](
            maps, listed, found.tallies, listed.shape[1], len(listed),
            odd(m[0].numel() for m in maps), maps[0].shape[1], lowest, CHANNELS_LAST=channels_last,
            BACKGROUND=background, BLOCK=_BLOCK, num_warps=8, maxnreg=64, **EXACT,
        )  # fmt: skip
    return listed


def _lowest_logit(rules: DenseRules) -> float:
    """Return a logit below which no score passes the threshold, with a margin for rounding.

    FCOS's score is the root of a product with a probability, so the square is compared.
    """
    lowest = rules.score_thresh**2 if rules.head == "fcos" else rules.score_thresh
    if rules.score_thresh <= 0:
        return -math.inf
    lowest *= 1 - 1e-5
    return math.inf if lowest >= 1 else math.log(lowest / (1 - lowest))


@triton.jit
def _load_four(base, step, mask):
    return (
        tl.load(base, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + step, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 2 * step, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 3 * step, mask=mask, other=0.0).to(tl.float32),
    )


@triton.jit
def _anchor(cell_anchors, anchor, x, y, horizontal, vertical, mask, OFFSET: tl.constexpr):
    """Return a shifted anchor; the shift is computed in float64 and rounded once."""
    x = (x.to(tl.float64) * horizontal + OFFSET * horizontal).to(tl.float32)
    y = (y.to(tl.float64) * vertical + OFFSET * vertical).to(tl.float32)
    x1, y1, x2, y2 = _load_four(cell_anchors + anchor * 4, 1, mask)
    return x + x1, y + y1, x + x2, y + y2


@triton.jit
def _decode(move, box, inverse_weights):
    return decode(
        move[0], move[1], move[2], move[3], box[0], box[1], box[2], box[3], inverse_weights
    )


@triton.jit
def _decode_linear(move, box, TORCHVISION: tl.constexpr):
    """Measure sides from an anchor's centre as `box_coding.apply_linear_deltas` does."""
    left, top, right, bottom = move
    x1, y1, x2, y2 = box
    if not TORCHVISION:  # Detectron2 lets sides move outwards only.
        left = tl.where(left < 0, 0.0, left)
        top = tl.where(top < 0, 0.0, top)
        right = tl.where(right < 0, 0.0, right)
        bottom = tl.where(bottom < 0, 0.0, bottom)
    x = 0.5 * (x1 + x2)
    y = 0.5 * (y1 + y2)
    width = x2 - x1
    height = y2 - y1
    return x - left * width, y - top * height, x + right * width, y + bottom * height


@triton.jit
def _store_box(base, corners, limits, mask, CLIPPED: tl.constexpr):
    """Write boxes, clipped to the height and width at `limits` if asked to."""
    x1, y1, x2, y2 = corners
    if CLIPPED:
        height = tl.load(limits)
        width = tl.load(limits + 1)
        x1 = clip(x1, width)
        y1 = clip(y1, height)
        x2 = clip(x2, width)
        y2 = clip(y2, height)
    tl.store(base, x1, mask=mask)
    tl.store(base + 1, y1, mask=mask)
    tl.store(base + 2, x2, mask=mask)
    tl.store(base + 3, y2, mask=mask)


@triton.jit(do_not_specialize=["capacity", "images", "channels"])
def _list_logits(
    maps, listed, tallies, capacity, images, sizes, channels, lowest, CHANNELS_LAST: tl.constexpr,
    BACKGROUND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """List the logits of a block; those of a level lie image after image."""
    block = tl.program_id(0)
    level = block * 0
    first_block = block * 0
    first_index = block * 0
    seen = block * 0
    index = block * 0
    for i in tl.static_range(len(sizes)):
        level = tl.where(block >= seen, i, level)
        first_block = tl.where(block >= seen, seen, first_block)
        first_index = tl.where(block >= seen, index, first_index)
        size = sizes[i] >> 1
        seen += ((size.to(tl.int64) * images + BLOCK - 1) // BLOCK).to(tl.int32)
        index += size
    size = pick_odd(sizes, level)
    total = size.to(tl.int64) * images
    start = (block - first_block).to(tl.int64) * BLOCK
    entry = start + tl.arange(0, BLOCK)
    base = pick(maps, level)
    logit = tl.load(base + entry, mask=entry // _GROUP < total // _GROUP, other=float("nan"))
    rest = (entry // _GROUP == total // _GROUP) & (entry < total)
    logit = tl.where(rest, tl.load(base + entry, mask=rest, other=float("nan")), logit)
    wanted = logit.to(tl.float32) >= lowest
    if tl.sum(wanted.to(tl.int32), 0) > 0:
        # Lanes divide integers of 32 bits: one division of 64 bits serves the block.
        first_image = start // size
        within = (start - first_image * size).to(tl.int32) + tl.arange(0, BLOCK)
        image = first_image + within // size
        within = within % size
        if not CHANNELS_LAST:
            pixels = size // channels
            within = within % pixels * channels + within // pixels
        if BACKGROUND:
            wanted = wanted & (within % channels > 0)
        place, fits = reserve(tallies, _LISTED, image, wanted, capacity)
        pattern = logit.to(tl.float32).to(tl.int32, bitcast=True).to(tl.int64) << 32
        tl.store(listed + place, pattern | (first_index + within).to(tl.int64), mask=fits)


@triton.jit
def _read_listed(listed, image, slot, capacity, exists):
    """Return the logits at slots of an image's list, and their indices."""
    both = tl.load(listed + image * capacity + slot, mask=exists, other=0)
    return (both >> 32).to(tl.int32).to(tl.float32, bitcast=True), (both & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _level_of(index, sizes):
    """Return the levels of indices of an image's table, and the first index of each of these."""
    level = index * 0
    first = index * 0
    seen = 0
    for i in tl.static_range(len(sizes)):
        level = tl.where(index >= seen, i, level)
        first = tl.where(index >= seen, seen, first)
        seen += sizes[i] >> 1
    return level, first


@triton.jit
def _move(base, pixel, anchor, pixels, mask, ANCHORS: tl.constexpr, LAST: tl.constexpr):
    """Return the four deltas of anchors from the maps of an image and level."""
    if LAST:
        place = (pixel * ANCHORS + anchor) * 4
        step = 1
    else:
        place = anchor * 4 * pixels + pixel
        step = pixels
    return _load_four(base + place, step, mask)


@triton.jit(do_not_specialize=["capacity"])
def _decode_listed(
    listed, moves, centres, cell_anchors, limits, keys, boxes, classes, groups, tallies, capacity,
    sizes, pixels_of_levels, widths, verticals, horizontals, threshold, inverse_weights,
    ANCHORS: tl.constexpr, CLASSES: tl.constexpr, OFFSET: tl.constexpr, MOVES_LAST: tl.constexpr,
    CENTERNESS: tl.constexpr, LINEAR: tl.constexpr, TORCHVISION: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Append what passes the threshold to the candidates of an image; each level is a group."""
    image = tl.program_id(1).to(tl.int64)
    length = length_of(tallies, _LISTED, image, capacity)
    for start in range(tl.program_id(0) * SLOTS, length, tl.num_programs(0) * SLOTS):
        slot = start + tl.arange(0, SLOTS)
        exists = slot < length
        logit, index = _read_listed(listed, image, slot, capacity, exists)
        level, first = _level_of(index, sizes)
        pixel = (index - first) // (ANCHORS * CLASSES)
        channel = (index - first) % (ANCHORS * CLASSES)
        anchor = channel // CLASSES
        pixels = pick_odd(pixels_of_levels, level)
        score = sigmoid(logit)
        if CENTERNESS:
            place = (image * ANCHORS + anchor) * pixels + pixel
            centre = tl.load(pick(centres, level) + place, mask=exists, other=0.0)
            score = tl.sqrt_rn(score * sigmoid(centre.to(tl.float32)))
        wanted = exists & (score > threshold)
        place, fits = append(keys, tallies, image + index * 0, score, index, wanted, capacity)
        tl.store(classes + place, channel % CLASSES, mask=fits)
        tl.store(groups + place, level, mask=fits)
        base = pick(moves, level) + image * pixels * (4 * ANCHORS)
        move = _move(base, pixel, anchor, pixels, fits, ANCHORS, MOVES_LAST)
        width = pick_odd(widths, level)
        box = _anchor(
            cell_anchors, level * ANCHORS + anchor, pixel % width, pixel // width,
            pick_odd(horizontals, level), pick_odd(verticals, level), fits, OFFSET,
        )  # fmt: skip
        if LINEAR:
            corners = _decode_linear(move, box, TORCHVISION)
        else:
            corners = _decode(move, box, inverse_weights)
        _store_box(boxes + place * 4, corners, limits + image * 2, fits, TORCHVISION)


@triton.jit(do_not_specialize=["capacity", "rows", "columns"])
def _decode_table(
    listed, moves, anchors, limits, keys, boxes, classes, groups, tallies, capacity, rows, columns,
    threshold, inverse_weights, SLOTS: tl.constexpr,
):  # fmt: skip
    """Append what passes the threshold to the candidates of an image; each class is a group."""
    image = tl.program_id(1).to(tl.int64)
    length = length_of(tallies, _LISTED, image, capacity)
    for start in range(tl.program_id(0) * SLOTS, length, tl.num_programs(0) * SLOTS):
        slot = start + tl.arange(0, SLOTS)
        exists = slot < length
        score, index = _read_listed(listed, image, slot, capacity, exists)
        wanted = exists & (score > threshold)
        place, fits = append(keys, tallies, image + index * 0, score, index, wanted, capacity)
        tl.store(classes + place, index % columns, mask=fits)
        tl.store(groups + place, index % columns, mask=fits)
        row = index // columns
        move = _load_four(moves + (image * rows + row) * 4, 1, fits)
        box = _load_four(anchors + row * 4, 1, fits)
        corners = _decode(move, box, inverse_weights)
        _store_box(boxes + place * 4, corners, limits + image * 2, fits, True)
