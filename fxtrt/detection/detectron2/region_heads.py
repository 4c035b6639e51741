"""Run the RoI heads of Detectron2 on padded proposals, for a core of fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import roi_heads as d2
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor

from ..class_masks import class_masks
from ..core_batch import CANDIDATES, Found
from ..host_steps import unchanged
from ..ops.box_detections import box_detections
from ..ops.multilevel_roi_align import multilevel_roi_align
from ..ops.refine_boxes import refine_boxes
from .padded_proposals import Regions, is_known_transform

__all__ = ["keypoint_maps_of", "masks_of", "why_no_core", "with_heads"]


def with_heads(heads: Any, features: Mapping[str, Tensor], regions: Regions) -> Found:
    """Return the detections that RoI heads find; `why_no_core` has accepted the heads.

    Args:
        features: (B, C, h, w) by name.
    """
    if isinstance(heads, d2.CascadeROIHeads):
        return _cascade(heads, features, regions)
    if isinstance(heads, d2.Res5ROIHeads):
        pooled = heads.res5(_pooled(heads.pooler, features, heads.in_features, regions))
        logits, deltas = heads.box_predictor(pooled.mean(dim=[2, 3]))
    else:
        pooled = _pooled(heads.box_pooler, features, heads.box_in_features, regions)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
    return _detections(heads.box_predictor, [logits], deltas, regions)


def _cascade(heads: Any, features: Mapping[str, Tensor], regions: Regions) -> Found:
    logits: list[Tensor] = []
    deltas: list[Tensor] = []
    for stage, predictor in enumerate(heads.box_predictor):
        if stage:
            weights = _weights(heads.box_predictor[stage - 1])
            refined = refine_boxes(deltas[-1], regions.boxes, regions.image_sizes, weights)
            regions = regions._replace(boxes=refined)
        pooled = _pooled(heads.box_pooler, features, heads.box_in_features, regions)
        outputs = predictor(heads.box_head[stage](pooled))
        logits.append(outputs[0])
        deltas.append(outputs[1])
    return _detections(heads.box_predictor[-1], logits, deltas[-1], regions)


def _weights(predictor: Any) -> list[float]:
    return list(map(float, predictor.box2box_transform.weights))


def _detections(
    predictor: Any, logits: Sequence[Tensor], deltas: Tensor, regions: Regions
) -> Found:
    return Found(
        *box_detections(
            list(logits),
            deltas,
            *regions,
            _weights(predictor),
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
            CANDIDATES,
            "detectron2",
        )
    )


def _pooled(
    pooler: Any, features: Mapping[str, Tensor], names: Sequence[str], regions: Regions
) -> Tensor:
    """Return (B * R, C, height, width)."""
    first = pooler.level_poolers[0]
    pooled: Tensor = multilevel_roi_align(
        [features[name] for name in names],
        regions.boxes,
        regions.counts,
        [one.spatial_scale for one in pooler.level_poolers],
        list(pooler.output_size),
        first.sampling_ratio,
        first.aligned,
        pooler.canonical_box_size,
        pooler.canonical_level,
        "detectron2",
    )
    return pooled


def masks_of(heads: Any, features: Mapping[str, Tensor], found: Found, sizes: Tensor) -> Tensor:
    """Return the mask of each detection in its class: (B, D, M, M), probabilities, float32."""
    regions = Regions(found.boxes, found.counts, sizes)
    if isinstance(heads, d2.Res5ROIHeads):
        pooled = heads.res5(_pooled(heads.pooler, features, heads.in_features, regions))
    else:
        pooled = _pooled(heads.mask_pooler, features, heads.mask_in_features, regions)
    return class_masks(heads.mask_head.layers(pooled), found.classes).float()[:, :, 0]


def keypoint_maps_of(
    heads: Any, features: Mapping[str, Tensor], found: Found, sizes: Tensor
) -> Tensor:
    """Return the heat maps of each detection's keypoints: (B * D, K, M, M)."""
    regions = Regions(found.boxes, found.counts, sizes)
    pooled = _pooled(heads.keypoint_pooler, features, heads.keypoint_in_features, regions)
    maps: Tensor = heads.keypoint_head.layers(pooled)
    return maps


def why_no_core(heads: Any) -> str | None:
    """Return why RoI heads cannot be part of a core, or None.

    A core runs their networks itself, so what lies between these must be Detectron2's own.
    """
    if isinstance(heads, d2.CascadeROIHeads):
        own = unchanged(heads, d2.CascadeROIHeads, *_STEPS, *_BRANCH_STEPS, *_CASCADE_STEPS)
    elif isinstance(heads, d2.Res5ROIHeads):
        own = unchanged(heads, d2.Res5ROIHeads, *_STEPS, "_shared_roi_transform")
    else:
        own = unchanged(heads, d2.StandardROIHeads, *_STEPS, *_BRANCH_STEPS)
    if not own:
        return f"{type(heads).__name__} has a forward or hooks of its own"
    for predictor in _predictors(heads):
        if not _is_known_predictor(predictor):
            return f"{type(predictor).__name__} predicts boxes in a way of its own"
    for pooler in _poolers(heads):
        if not _is_known_pooler(pooler):
            return f"{type(pooler).__name__} pools in a way of its own"
    return _why_no_branches(heads)


_STEPS = ("forward", "forward_with_given_boxes")
_BRANCH_STEPS = ("_forward_box", "_forward_mask", "_forward_keypoint")
_CASCADE_STEPS = ("_run_stage", "_create_proposals_from_boxes")


def _predictors(heads: Any) -> list[Any]:
    predictor = heads.box_predictor
    return list(predictor) if isinstance(predictor, torch.nn.ModuleList) else [predictor]


def _is_known_predictor(predictor: Any) -> bool:
    own = unchanged(
        predictor,
        d2.FastRCNNOutputLayers,
        *("inference", "predict_boxes", "predict_probs"),
    )
    return (
        own
        and not getattr(predictor, "use_sigmoid_ce", False)
        and predictor.test_topk_per_image > 0
        and is_known_transform(predictor.box2box_transform)
    )


def _poolers(heads: Any) -> list[Any]:
    names = ("pooler", "box_pooler", "mask_pooler", "keypoint_pooler")
    return [pooler for name in names if (pooler := getattr(heads, name, None)) is not None]


def _is_known_pooler(pooler: Any) -> bool:
    return unchanged(pooler, ROIPooler, "forward") and all(
        unchanged(one, ROIAlign, "forward") for one in pooler.level_poolers
    )


_BRANCHES: Mapping[str, tuple[type[Any], str]] = {
    "mask": (d2.BaseMaskRCNNHead, "mask_pooler"),
    "keypoint": (d2.BaseKeypointRCNNHead, "keypoint_pooler"),
}


def _why_no_branches(heads: Any) -> str | None:
    """Return why the mask or keypoint head cannot be part of a core, or None."""
    for name, (kind, pooler) in _BRANCHES.items():
        if not getattr(heads, f"{name}_on", False):
            continue
        head = getattr(heads, f"{name}_head")
        if not unchanged(head, kind, "forward"):
            return f"{type(head).__name__} has a forward or hooks of its own"
        if not isinstance(heads, d2.Res5ROIHeads) and getattr(heads, pooler) is None:
            return f"{type(head).__name__} pools its features itself"
    return None
