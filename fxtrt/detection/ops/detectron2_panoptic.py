"""Define `fxtrt::detectron2_panoptic`, which merges instances and semantics into segments."""

from __future__ import annotations

import math

import torch
from detectron2.modeling.meta_arch import panoptic_fpn
from detectron2.structures import Instances
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["COLUMNS", "combine_as_table"]

_combine = panoptic_fpn.combine_semantic_and_instance_outputs
"""Detectron2's own function, read at import: during capture an equivalent replaces it."""

COLUMNS = ("id", "isthing", "score", "category_id", "instance_id", "area")
"""The columns of the table of segments: the keys of the original's dicts."""


@custom_op("fxtrt::detectron2_panoptic", mutates_args=())
def combine_as_table(
    masks: Tensor,
    scores: Tensor,
    classes: Tensor,
    semantic: Tensor,
    overlap: float,
    stuff_area: float,
    least_score: float,
) -> tuple[Tensor, Tensor]:
    """Call `combine_semantic_and_instance_outputs` of Detectron2, which loops over instances.

    Args:
        masks: (N, H, W), bool.
        scores: (N,).
        classes: (N,).
        semantic: (H, W), int64.

    Returns:
        (H, W), int32: the number of each pixel's segment; and (S, 6), float64, on the CPU: a row
        of `COLUMNS` for each segment, with NaN where the original's dict has no such key.
    """
    height, width = semantic.shape
    instances = Instances((height, width), pred_masks=masks, scores=scores, pred_classes=classes)
    panoptic, segments = _combine(instances, semantic, overlap, stuff_area, least_score)
    rows = [[float(one.get(name, math.nan)) for name in COLUMNS] for one in segments]
    return panoptic, torch.tensor(rows, dtype=torch.float64).reshape(-1, len(COLUMNS))


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
    table = semantic.new_empty((count, len(COLUMNS)), dtype=torch.float64, device="cpu")
    return torch.empty_like(semantic, dtype=torch.int32), table


explain("fxtrt::detectron2_panoptic", "it merges segment after segment, as the data decides")
