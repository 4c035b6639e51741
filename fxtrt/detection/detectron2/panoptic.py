"""Panoptic segmentation as one operator of a graph, with a table in place of its list of segments.

Importing this module defines the operator, which is Detectron2's own function inside, and lets
pytrees turn the table back into the list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.meta_arch import panoptic_fpn
from detectron2.structures import Instances
from torch import Tensor
from torch.utils import _pytree as pytree

from ...registry import explain

__all__ = ["combine", "combine_as_table"]

# Bound now: during capture the name in Detectron2 is that of the equivalent.
_combine = panoptic_fpn.combine_semantic_and_instance_outputs

_COLUMNS = ("id", "isthing", "score", "category_id", "instance_id", "area")
_TYPES: Mapping[str, type] = {"isthing": bool, "score": float}
"""Of the columns; the others are int."""


@torch.library.custom_op("fxtrt::detectron2_panoptic", mutates_args=())
def combine_as_table(
    masks: Tensor,
    scores: Tensor,
    classes: Tensor,
    semantic: Tensor,
    overlap: float,
    stuff_area: float,
    least_score: float,
) -> tuple[Tensor, Tensor]:
    """`combine_semantic_and_instance_outputs` of Detectron2: a loop over instances.

    Args:
        masks: (N, H, W), bool; scores: (N,); classes: (N,); semantic: (H, W), int64.

    Returns:
        (H, W), int32: the number of each pixel's segment; and (S, 6), float64, on the CPU: the
        segments, NaN for what one does not have.
    """
    height, width = semantic.shape
    instances = Instances((height, width), pred_masks=masks, scores=scores, pred_classes=classes)
    panoptic, segments = _combine(instances, semantic, overlap, stuff_area, least_score)
    rows = [[float(one.get(name, math.nan)) for name in _COLUMNS] for one in segments]
    return panoptic, torch.tensor(rows, dtype=torch.float64).reshape(-1, len(_COLUMNS))


@combine_as_table.register_fake
def _(
    masks: Tensor,
    scores: Tensor,
    classes: Tensor,
    semantic: Tensor,
    overlap: float,
    stuff_area: float,
    least_score: float,
) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size(min=0)
    table = semantic.new_empty((count, len(_COLUMNS)), dtype=torch.float64, device="cpu")
    return torch.empty_like(semantic, dtype=torch.int32), table


def combine(
    instance_results: Any,
    semantic_results: Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[Tensor, Any]:
    """`combine_semantic_and_instance_outputs`; a call of the graph gives its list of dicts."""
    panoptic, table = combine_as_table(
        instance_results.pred_masks,
        instance_results.scores,
        instance_results.pred_classes,
        semantic_results,
        overlap_threshold,
        stuff_area_thresh,
        instances_score_thresh,
    )
    return panoptic, _Segments(table)


@dataclass(frozen=True, slots=True)
class _Segments:
    """The segments of a picture, while a graph is captured."""

    table: Tensor


def _unflatten(values: Any, context: None) -> Any:
    (table,) = values
    # While capturing it is none yet, or a stand-in.
    return _segments(table) if type(table) is Tensor else _Segments(table)


def _segments(table: Tensor) -> list[dict[str, Any]]:
    return [
        {
            name: _TYPES.get(name, int)(value)
            for name, value in zip(_COLUMNS, row, strict=True)
            if not math.isnan(value)
        }
        for row in table.tolist()
    ]


pytree.register_pytree_node(
    _Segments,
    lambda segments: ([segments.table], None),
    _unflatten,
    serialized_type_name="fxtrt.detection.detectron2.panoptic.Segments",
)


explain("fxtrt::detectron2_panoptic", "it merges segment after segment, as the data decides")
