"""Pick the detections of a one-stage detector: read all scores once, decode the best.

A level has up to millions of scores, and the best thousand are wanted. So scores are put in groups
of neighbours in a level's order. The best k scores of a level lie in its best k groups, by their
highest scores, and of equal groups the first: each of k groups ahead of another has a score ahead
of all of that one's. A first launch reads all and writes the highest score of each group. The
radix selection picks groups, then scores from these. It needs no bound, so nothing can overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..dense_rules import DenseRules
from .candidates import MOST_BOXES, detections, new_candidates, tally
from .decode import EXACT, clip_box, decode, inverses, load_anchor, load_deltas, store_four
from .exponential import sigmoid
from .levels import odd, pick, pick_odd, same_layout
from .topk import best_of_levels, level_of_chunk

__all__ = ["MOST_BOXES", "dense_detections", "takes"]

_WIDTH = 64
"""The number of channels of a pixel that form a group."""
_PIXELS = 64
"""The number of groups that a program reads."""
_SLOTS = 128
"""The number of boxes that a program decodes."""


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
    """Do what `fxtrt::dense_detections` does for RetinaNet and FCOS; rows mean nothing here.

    Equal scores of a level are taken by rising index. Otherwise results differ from the library's
    on a GPU by the last bit of `exp`, and where boxes are not finite.
    """
    images, device = len(image_sizes), image_sizes.device
    pixels = [level.shape[2:].numel() for level in logits]
    groups, scores = _best_scores(logits, centerness, pixels, len(cell_anchors[0]), rules)
    topk = min(rules.topk, max(pixels) * logits[0].shape[1])
    values, places = best_of_levels(scores, topk)
    bound = max(min(rules.candidates, MOST_BOXES, len(pixels) * topk), 1)
    merged = torch.full((images, bound), -1.0, dtype=torch.float32, device=device)
    source = torch.zeros((images, bound), dtype=torch.int32, device=device)
    programs = triton.cdiv(bound, _SLOTS)
    tallies = torch.empty((images, programs, 2), dtype=torch.int32, device=device)
    if values.numel():
        _merge[triton.cdiv(len(pixels) * topk, 16), images](
            values, merged, source, len(pixels) * topk, bound, SLOTS=16, OTHERS=256, **EXACT
        )  # fmt: skip
    found = new_candidates(merged, source, tallies)
    moves, moves_last = same_layout(deltas)
    _decode_best[programs, images](
        merged, source, places, groups, moves, torch.cat(list(cell_anchors)).float(),
        image_sizes.float().contiguous(), found.boxes, found.classes, found.valid, tallies, bound,
        topk, groups.shape[2], odd(pixels), odd(m.shape[3] for m in logits), odd(strides[::2]),
        odd(strides[1::2]), inverses(rules.weights), ANCHORS=len(cell_anchors[0]),
        CHANNELS=logits[0].shape[1], OFFSET=float(rules.offset), MOVES_LAST=moves_last,
        LINEAR=rules.head == "fcos", TORCHVISION=rules.library == "torchvision", WIDTH=_WIDTH,
        SLOTS=_SLOTS, **EXACT,
    )  # fmt: skip
    limit = bound if bound == len(pixels) * topk else bound - 1
    return detections(found, rules.nms_thresh, rules.most, limit, 1)


def _best_scores(
    logits: Sequence[Tensor],
    centerness: Sequence[Tensor],
    pixels: Sequence[int],
    anchors: int,
    rules: DenseRules,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Select the groups of each level that hold its best scores.

    Returns:
        (B, levels, n), int32: the groups of each level, by rising number; and (B, n * `_WIDTH`),
        float32, of each level, the scores in these groups, -1 for those that do not count.
    """
    maps, last = same_layout(logits)
    images, channels, device = maps[0].shape[0], maps[0].shape[1], maps[0].device
    # Centerness has a channel for each anchor, which makes it far smaller than the others.
    centres = tuple(level.contiguous() for level in centerness) or maps
    common = (maps, centres, odd(pixels), rules.score_thresh)
    constants: dict[str, Any] = {
        "ANCHORS": anchors, "CHANNELS": channels, "LAST": last, "CENTERNESS": len(centerness) > 0,
        "WIDTH": _WIDTH, **EXACT,
    }  # fmt: skip
    parts = triton.cdiv(channels, _WIDTH)
    best = tuple(
        torch.empty((images, n * parts), dtype=torch.float32, device=device) for n in pixels
    )
    tiles = sum(triton.cdiv(n, _PIXELS) for n in pixels)
    _best_of_groups[tiles, parts, images](*common, best, PIXELS=_PIXELS, **constants)
    most = min(rules.topk, max(pixels) * parts)
    _, groups = best_of_levels(best, most, by_index=True)
    scores = tuple(
        torch.empty((images, min(most, n * parts) * _WIDTH), dtype=torch.float32, device=device)
        for n in pixels
    )
    _scores_of_groups[triton.cdiv(most, 16), images * len(maps)](
        *common, groups, scores, most, SLOTS=16, **constants
    )  # fmt: skip
    return groups, scores


@triton.jit
def _read(
    maps, level, image, pixel, channel, pixels, exists, CHANNELS: tl.constexpr, LAST: tl.constexpr
):  # fmt: skip
    """Return logits of pixels (in rows) and channels, -inf for NaN and for what does not exist."""
    place = pixel * CHANNELS + channel if LAST else channel * pixels + pixel
    base = pick(maps, level) + image * pixels * CHANNELS
    logit = tl.load(base + place, mask=exists, other=float("-inf")).to(tl.float32)
    return tl.where(logit == logit, logit, float("-inf"))


@triton.jit
def _with_centerness(
    score, centres, level, image, pixel, channel, pixels, exists, ANCHORS: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return FCOS's scores from the probabilities of classes."""
    anchor = channel // (CHANNELS // ANCHORS)
    place = (image * ANCHORS + anchor) * pixels + pixel
    centre = tl.load(pick(centres, level) + place, mask=exists, other=0.0).to(tl.float32)
    return tl.sqrt_rn(score * sigmoid(centre))


@triton.jit
def _best_of_groups(
    maps, centres, pixels_of_levels, threshold, best, ANCHORS: tl.constexpr,
    CHANNELS: tl.constexpr, LAST: tl.constexpr, CENTERNESS: tl.constexpr, WIDTH: tl.constexpr,
    PIXELS: tl.constexpr,
):  # fmt: skip
    """Write the highest score of each group, -1 where none passes the threshold."""
    tile = tl.program_id(0)
    part = tl.program_id(1)
    image = tl.program_id(2).to(tl.int64)
    level, first = level_of_chunk(tile, pixels_of_levels, PIXELS)
    pixels = pick_odd(pixels_of_levels, level)
    group = (tile - first) * PIXELS + tl.arange(0, PIXELS)
    pixel = group[:, None]
    channel = (part * WIDTH + tl.arange(0, WIDTH))[None, :]
    exists = (pixel < pixels) & (channel < CHANNELS)
    logit = _read(maps, level, image, pixel, channel, pixels, exists, CHANNELS, LAST)
    if CENTERNESS:
        score = _with_centerness(
            sigmoid(logit), centres, level, image, pixel, channel, pixels, exists, ANCHORS, CHANNELS
        )
        highest = tl.max(tl.where(score > threshold, score, -1.0), 1)
    else:  # The sigmoid rises, so one of the highest logit is enough.
        highest = sigmoid(tl.max(logit, 1))
        highest = tl.where(highest > threshold, highest, -1.0)
    parts = tl.num_programs(1)
    target = pick(best, level) + image * pixels * parts + group * parts + part
    tl.store(target, highest, mask=group < pixels)


@triton.jit(do_not_specialize=["most"])
def _scores_of_groups(
    maps, centres, pixels_of_levels, threshold, groups, scores, most, ANCHORS: tl.constexpr,
    CHANNELS: tl.constexpr, LAST: tl.constexpr, CENTERNESS: tl.constexpr, WIDTH: tl.constexpr,
    SLOTS: tl.constexpr,
):  # fmt: skip
    """Write the scores of the selected groups, -1 for those that do not pass the threshold."""
    row = tl.program_id(1).to(tl.int64)
    image = row // len(maps)
    level = (row % len(maps)).to(tl.int32)
    pixels = pick_odd(pixels_of_levels, level)
    parts: tl.constexpr = (CHANNELS + WIDTH - 1) // WIDTH
    count = tl.minimum(most, pixels * parts)
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    group = tl.load(groups + row * most + slot, mask=slot < count, other=0)
    lane = tl.arange(0, WIDTH)[None, :]
    pixel = (group // parts)[:, None]
    channel = (group % parts)[:, None] * WIDTH + lane
    exists = (slot < count)[:, None] & (channel < CHANNELS)
    logit = _read(maps, level, image, pixel, channel, pixels, exists, CHANNELS, LAST)
    score = sigmoid(logit)
    if CENTERNESS:
        score = _with_centerness(
            score, centres, level, image, pixel, channel, pixels, exists, ANCHORS, CHANNELS
        )
    score = tl.where(exists & (score > threshold), score, -1.0)
    target = pick(scores, level) + (image * count + slot[:, None]) * WIDTH + lane
    tl.store(target, score, mask=(slot < count)[:, None] & (lane < WIDTH))


@triton.jit(do_not_specialize=["length", "bound"])
def _merge(
    values, merged, source, length, bound, SLOTS: tl.constexpr, OTHERS: tl.constexpr
):  # fmt: skip
    """Write each score of all levels to the place that the number of better ones gives it.

    Equal ones go by rising level, and then as they are.
    """
    image = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    mine = tl.load(values + image * length + slot, mask=slot < length, other=-1.0)
    rank = tl.zeros([SLOTS], tl.int32)
    for start in range(0, length, OTHERS):
        other = start + tl.arange(0, OTHERS)
        theirs = tl.load(values + image * length + other, mask=other < length, other=-1.0)
        equal = (theirs[None, :] == mine[:, None]) & (other[None, :] < slot[:, None])
        rank += tl.sum(((theirs[None, :] > mine[:, None]) | equal).to(tl.int32), 1)
    taken = (mine >= 0) & (rank < bound)
    tl.store(merged + image * bound + rank, mine, mask=taken)
    tl.store(source + image * bound + rank, slot, mask=taken)


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


@triton.jit(do_not_specialize=["bound", "topk", "most_groups"])
def _decode_best(
    merged, source, places, groups, moves, cell_anchors, limits, boxes, classes, valid, tallies,
    bound, topk, most_groups, pixels_of_levels, widths, verticals, horizontals, inverse_weights,
    ANCHORS: tl.constexpr, CHANNELS: tl.constexpr, OFFSET: tl.constexpr, MOVES_LAST: tl.constexpr,
    LINEAR: tl.constexpr, TORCHVISION: tl.constexpr, WIDTH: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """Decode the selected boxes."""
    image = tl.program_id(1).to(tl.int64)
    slot = tl.program_id(0) * SLOTS + tl.arange(0, SLOTS)
    exists = slot < bound
    taken = tl.load(merged + image * bound + slot, mask=exists, other=-1.0) >= 0
    entry = tl.load(source + image * bound + slot, mask=exists, other=0)
    level = entry // topk
    row = image * len(moves) + level
    place = tl.load(places + row * topk + entry % topk, mask=taken, other=0)
    group = tl.load(groups + row * most_groups + place // WIDTH, mask=taken, other=0)
    parts: tl.constexpr = (CHANNELS + WIDTH - 1) // WIDTH
    pixel = group // parts
    channel = group % parts * WIDTH + place % WIDTH
    anchor = channel // (CHANNELS // ANCHORS)
    pixels = pick_odd(pixels_of_levels, level)
    base = pick(moves, level) + image * pixels * (4 * ANCHORS)
    move = load_deltas(base, pixel, anchor, pixels, taken, ANCHORS, MOVES_LAST)
    width = pick_odd(widths, level)
    x1, y1, x2, y2 = load_anchor(
        cell_anchors, level * ANCHORS + anchor, pixel % width, pixel // width,
        pick_odd(horizontals, level), pick_odd(verticals, level), taken, OFFSET,
    )  # fmt: skip
    if LINEAR:
        x1, y1, x2, y2 = _decode_linear(move, (x1, y1, x2, y2), TORCHVISION)
    else:
        x1, y1, x2, y2 = decode(move[0], move[1], move[2], move[3], x1, y1, x2, y2, inverse_weights)
    if TORCHVISION:
        x1, y1, x2, y2 = clip_box(x1, y1, x2, y2, limits + image * 2, None)
    target = image * bound + slot
    store_four(boxes + target * 4, x1, y1, x2, y2, exists)
    tl.store(classes + target, channel % (CHANNELS // ANCHORS), mask=exists)
    tl.store(valid + target, taken.to(tl.int8), mask=exists)
    program = image * tl.num_programs(0) + tl.program_id(0)
    tally(tallies, program, taken, taken, x1, y1, x2, y2)
