"""Define `fxtrt::rpn_proposals`, which picks each image's proposals from an RPN head's maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..anchors import grid_anchors
from ..box_coding import apply_deltas, clip
from ..kernels.available import TRITON
from ..padded_rows import new_found, pad_found
from .batched_nms import batched_nms

__all__ = ["rpn_proposals"]

Candidates = tuple[Tensor, Tensor, Tensor]
"""Boxes (N, 4), their scores (N,) and levels (N,), or the same with a first dimension of images."""


def _composed(
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
    """Decode the best anchors of each level, suppress within levels, keep the best of each image.

    It does what Detectron2's `find_top_rpn_proposals` or torchvision's
    `RegionProposalNetwork.filter_proposals` does with the anchors of their own generators,
    always in float32. The results have a fixed shape: rows from an image's count on hold 0.

    Args:
        logits: (B, A, h, w) of each level.
        deltas: (B, 4 * A, h, w) of each level.
        cell_anchors: (A, 4) of each level, float32.
        image_sizes: (B, 2), float32: height and width without padding.
        strides: the vertical and the horizontal stride of each level, one after the other.
        offset: anchors begin at this multiple of a stride.
        weights: what dx, dy, dw and dh are divided by.
        pre_nms_topk: the most anchors of a level.
        post_nms_topk: the most proposals of an image.
        min_size: the shortest side; Detectron2 asks for more than this, torchvision for as much.
        score_thresh: the lowest probability; only torchvision asks for one.
        library: "detectron2", "torchvision", or "detectron2_0.4", which orders equal logits as
            `torch.sort` does. The others leave that to `torch.topk`.

    Returns:
        (B, post_nms_topk, 4) boxes and (B, post_nms_topk) scores, both float32, by falling score;
        and (B,) counts, int32. Scores are logits; for torchvision they are probabilities.
    """
    levels = zip(logits, deltas, cell_anchors, strides[::2], strides[1::2], strict=True)
    best = [_best_of_level(*level, offset, weights, pre_nms_topk, library) for level in levels]
    boxes = torch.cat([boxes for boxes, _ in best], 1)
    scores = torch.cat([scores for _, scores in best], 1)
    ids = torch.cat([scores.new_full(scores.shape[1:], i) for i, (_, scores) in enumerate(best)])
    if library == "torchvision":
        scores = scores.sigmoid()
    found = []
    for images_boxes, images_scores, size in zip(boxes, scores, image_sizes, strict=True):
        candidates = (images_boxes, images_scores, ids)
        if library == "torchvision":
            candidates = _filter_torchvision(candidates, size, min_size, score_thresh)
        else:
            candidates = _filter_detectron2(candidates, size, min_size)
        kept = batched_nms(*candidates, nms_thresh)[:post_nms_topk]
        found.append((candidates[0][kept], candidates[1][kept]))
    found_boxes, found_scores, counts = pad_found(found, post_nms_topk, image_sizes, labels=0)
    return found_boxes, found_scores, counts


rpn_proposals = custom_op("fxtrt::rpn_proposals", mutates_args=())(_composed)


@rpn_proposals.register_kernel("cuda")
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Run the Triton kernels; without Triton the composition, which waits for the GPU."""
    if TRITON:
        from ..kernels import rpn

        if rpn.takes(*arguments):
            return rpn.proposals(*arguments)
    return _composed(*arguments)


def _best_of_level(
    logits: Tensor,
    deltas: Tensor,
    cell_anchors: Tensor,
    vertical: int,
    horizontal: int,
    offset: float,
    weights: Sequence[float],
    most: int,
    library: str,
) -> tuple[Tensor, Tensor]:
    """Return (B, K, 4) boxes and (B, K) logits of the K best anchors of a level.

    All anchors are decoded, as both libraries do: the last bit of `exp` may depend on how many
    there are.
    """
    images, _, height, width = logits.shape
    scores = logits.float().permute(0, 2, 3, 1).flatten(1)
    by_anchor = (
        deltas.float().reshape(images, len(cell_anchors), 4, height, width).permute(0, 3, 4, 1, 2)
    )
    anchors = grid_anchors(cell_anchors, (height, width), (vertical, horizontal), offset)
    decoded = apply_deltas(by_anchor.reshape(-1, 4), anchors.repeat(images, 1), weights)
    boxes = decoded.view(images, len(anchors), 4)
    best, index = _highest(scores, min(most, scores.shape[1]), library)
    return boxes.gather(1, index[:, :, None].expand(-1, -1, 4)), best


def _highest(scores: Tensor, count: int, library: str) -> tuple[Tensor, Tensor]:
    """Return the highest scores of each row and their indices; the library's order breaks ties."""
    if library != "detectron2_0.4":
        best, index = scores.topk(count, dim=1)
        return best, index
    ordered, order = scores.sort(descending=True, dim=1)
    return ordered[:, :count], order[:, :count]


def _filter_detectron2(candidates: Candidates, size: Tensor, min_size: float) -> Candidates:
    """Drop what is not finite or, once clipped, too small."""
    boxes, scores, levels = candidates
    finite = boxes.isfinite().all(1) & scores.isfinite()
    boxes, scores, levels = boxes[finite], scores[finite], levels[finite]
    boxes = clip(boxes, size)
    large = ((boxes[:, 2:] - boxes[:, :2]) > min_size).all(1)
    return boxes[large], scores[large], levels[large]


def _filter_torchvision(
    candidates: Candidates, size: Tensor, min_size: float, score_thresh: float
) -> Candidates:
    """Drop what is too small once clipped, or too unlikely; a NaN fails both comparisons."""
    boxes, scores, levels = candidates
    boxes = clip(boxes, size)
    passed = ((boxes[:, 2:] - boxes[:, :2]) >= min_size).all(1) & (scores >= score_thresh)
    return boxes[passed], scores[passed], levels[passed]


@rpn_proposals.register_fake
def _(
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
    boxes, scores, counts = new_found(image_sizes, post_nms_topk, labels=0)
    return boxes, scores, counts


explain("fxtrt::rpn_proposals", "which anchors it keeps depends on the data")
