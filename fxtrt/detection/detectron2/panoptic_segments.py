"""Merge instances and semantics into segments by Detectron2's rules, without its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["Thresholds", "combine"]


class Thresholds(NamedTuple):
    """The limits of `combine_semantic_and_instance_outputs`.

    overlap:     the share of a mask that earlier ones may cover.
    stuff_area:  the least pixels of a segment of stuff.
    least_score: of an instance.
    """

    overlap: float
    stuff_area: float
    least_score: float


def combine(
    fields: Mapping[str, Tensor], semantic: Tensor, limits: Thresholds
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Do what Detectron2's `combine_semantic_and_instance_outputs` does.

    Args:
        fields: "pred_masks" (N, H, W), bool; "scores" and "pred_classes" (N,).
        semantic: (H, W), int64.

    Returns:
        (H, W), int32: the number of each pixel's segment; and a dict for each segment.
    """
    panoptic = torch.zeros_like(semantic, dtype=torch.int32)
    segments: list[dict[str, Any]] = []
    scores, classes = fields["scores"].tolist(), fields["pred_classes"].tolist()
    for instance in torch.argsort(-fields["scores"]).tolist():
        if scores[instance] < limits.least_score:
            break
        mask = fields["pred_masks"][instance]
        area = int(mask.sum())
        covered = int((mask & (panoptic > 0)).sum())
        if area == 0 or covered / area > limits.overlap:
            continue
        segments.append(
            {
                "id": len(segments) + 1,
                "isthing": True,
                "score": scores[instance],
                "category_id": classes[instance],
                "instance_id": instance,
            }
        )
        panoptic[mask & (panoptic == 0)] = len(segments)
    for label in torch.unique(semantic).tolist():
        mask = (semantic == label) & (panoptic == 0)
        area = int(mask.sum())
        # 0 stands for all things.
        if label == 0 or area < limits.stuff_area:
            continue
        segments.append(
            {"id": len(segments) + 1, "isthing": False, "category_id": label, "area": area}
        )
        panoptic[mask] = len(segments)
    return panoptic, segments
