"""Answers of detectors and annotations, from plain lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["annotation", "detections"]


def annotation(boxes: Sequence[Sequence[float]], labels: Sequence[int]) -> dict[str, Any]:
    """What is in an image."""
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def detections(
    boxes: Sequence[Sequence[float]], labels: Sequence[int], scores: Sequence[float]
) -> dict[str, Any]:
    """What one of torchvision's detectors answers for an image."""
    return {**annotation(boxes, labels), "scores": torch.tensor(scores, dtype=torch.float32)}
