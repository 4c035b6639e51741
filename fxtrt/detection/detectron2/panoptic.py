"""Replace panoptic segmentation by one operator, and turn its table into Detectron2's list.

A graph returns tensors only, so the segments are a table in it. Importing this module lets pytrees
turn the table into the list when a call of the graph returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from ..ops.detectron2_panoptic import COLUMNS, combine_as_table

__all__ = ["combine"]

_TYPES: Mapping[str, type] = {"isthing": bool, "score": float}
"""The types of columns that are not int."""


def combine(
    instance_results: Any,
    semantic_results: Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[Tensor, Any]:
    """Replace `combine_semantic_and_instance_outputs`; a call of the graph returns its list."""
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
    # During capture the leaf is a fake tensor or a placeholder, whose values cannot be read.
    return _list_of_dicts(table) if type(table) is Tensor else _Segments(table)


def _list_of_dicts(table: Tensor) -> list[dict[str, Any]]:
    return [
        {
            name: _TYPES.get(name, int)(value)
            for name, value in zip(COLUMNS, row, strict=True)
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
