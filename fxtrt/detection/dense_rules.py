"""The numbers and names by which a one-stage detector picks its detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DenseRules"]


@dataclass(frozen=True)
class DenseRules:
    """Arguments of `fxtrt::dense_detections`, which explains them, but for its tensors."""

    offset: float
    weights: Sequence[float]
    score_thresh: float
    nms_thresh: float
    topk: int
    most: int
    candidates: int
    library: str
    head: str
