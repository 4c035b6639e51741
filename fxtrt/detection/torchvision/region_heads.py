"""Run torchvision's RPN and RoI heads on padded boxes, for a core of fixed shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops.poolers import LevelMapper, MultiScaleRoIAlign

from ..class_masks import class_masks
from ..core_batch import CANDIDATES, Found
from ..host_steps import unchanged
from ..ops.box_detections import box_detections
from ..ops.multilevel_roi_align import multilevel_roi_align
from ..ops.rpn_proposals import rpn_proposals
from .anchors import strides_of, why_no_anchors
from .pyramid import Shapes
from .steps import is_known_coder

__all__ = [
    "Pooler",
    "detections_of",
    "masks_of",
    "poolers_of",
    "proposals_of",
    "why_no_heads",
]


def proposals_of(
    rpn: Any,
    features: Sequence[Tensor],
    images: Tensor,
    image_sizes: Tensor,
    cell_anchors: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Return the proposals of an RPN: (B, R, 4) boxes and (B,) counts."""
    logits, deltas = rpn.head(list(features))
    boxes, _, counts = rpn_proposals(
        list(logits),
        list(deltas),
        list(cell_anchors),
        image_sizes,
        strides_of(features, images),
        0.0,
        list(map(float, rpn.box_coder.weights)),
        rpn.nms_thresh,
        rpn.pre_nms_top_n(),
        rpn.post_nms_top_n(),
        rpn.min_size,
        rpn.score_thresh,
        "torchvision",
    )
    return boxes, counts


def detections_of(
    heads: Any, logits: Tensor, deltas: Tensor, boxes: Tensor, counts: Tensor, image_sizes: Tensor
) -> Found:
    """Return the detections among proposals, of which there are (B, R, 4)."""
    return Found(
        *box_detections(
            [logits],
            deltas,
            boxes,
            counts,
            image_sizes,
            list(map(float, heads.box_coder.weights)),
            heads.score_thresh,
            heads.nms_thresh,
            heads.detections_per_img,
            CANDIDATES,
            "torchvision",
        )
    )


class Pooler:
    """A `MultiScaleRoIAlign` that knows the scales of its levels before it is called.

    torchvision infers them at the first call, and keeps them.
    """

    def __init__(self, pooler: Any, shapes: Shapes, side: int) -> None:
        """Take over what `pooler` does.

        Args:
            shapes: of the levels that square images of `side` pixels have.
        """
        self._names = [name for name in shapes if name in pooler.featmap_names]
        inferred = [2.0 ** round(math.log2(shapes[name][0] / side)) for name in self._names]
        self._scales = list(map(float, pooler.scales or inferred))
        self._output_size = list(pooler.output_size)
        self._sampling_ratio = pooler.sampling_ratio
        self._canonical = (pooler.canonical_scale, pooler.canonical_level)

    def __call__(self, features: Mapping[str, Tensor], boxes: Tensor, counts: Tensor) -> Tensor:
        """Return (B * R, C, height, width) for (B, R, 4) boxes."""
        pooled: Tensor = multilevel_roi_align(
            [features[name] for name in self._names],
            boxes,
            counts,
            self._scales,
            self._output_size,
            self._sampling_ratio,
            False,
            *self._canonical,
            "torchvision",
        )
        return pooled


def poolers_of(heads: Any, shapes: Shapes, side: int) -> dict[str, Pooler]:
    """Return the poolers of RoI heads by their kind: "box", "mask" and "keypoint"."""
    return {kind: Pooler(pooler, shapes, side) for kind, pooler in _poolers(heads).items()}


def _poolers(heads: Any) -> dict[str, Any]:
    kinds = {"box": True, "mask": heads.has_mask(), "keypoint": heads.has_keypoint()}
    return {kind: getattr(heads, f"{kind}_roi_pool") for kind, used in kinds.items() if used}


def why_no_heads(rpn: Any, heads: Any, shapes: Shapes) -> str | None:
    """Return why an RPN or RoI heads cannot be part of a core, or None.

    A core runs their networks itself, so what lies between these must be torchvision's own.
    """
    for piece, kind, steps in ((rpn, RegionProposalNetwork, _RPN), (heads, RoIHeads, _HEADS)):
        if not unchanged(piece, kind, *steps):
            return f"{type(piece).__name__} has steps of its own"
        if not is_known_coder(piece.box_coder):
            return f"{type(piece.box_coder).__name__} decodes boxes in a way of its own"
    for pooler in _poolers(heads).values():
        if not _is_known_pooler(pooler):
            return f"{type(pooler).__name__} pools in a way of its own"
    return why_no_anchors(rpn.anchor_generator, len(shapes))


_RPN = ("forward", "filter_proposals", "_get_top_n_idx", "pre_nms_top_n", "post_nms_top_n")
_HEADS = ("forward", "postprocess_detections", "has_mask", "has_keypoint")


def _is_known_pooler(pooler: Any) -> bool:
    if not unchanged(pooler, MultiScaleRoIAlign, "forward"):
        return False
    mapper, scales = pooler.map_levels, pooler.scales
    if mapper is None or scales is None:
        return mapper is scales
    expected = (-math.log2(scales[0]), -math.log2(scales[-1]))
    canonical = (pooler.canonical_scale, pooler.canonical_level, 1e-6)
    return (
        unchanged(mapper, LevelMapper, "__call__")
        and (mapper.k_min, mapper.k_max) == expected
        and (mapper.s0, mapper.lvl0, mapper.eps) == canonical
    )


def masks_of(heads: Any, pooled: Tensor, labels: Tensor) -> Tensor:
    """Return the mask of each detection in its class: (B, D, 1, M, M), probabilities.

    Args:
        pooled: (B * D, C, m, m).
        labels: (B, D), -1 for padding.
    """
    return class_masks(heads.mask_predictor(heads.mask_head(pooled)), labels)
