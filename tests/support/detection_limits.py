"""How far detections of engines may be from those of PyTorch."""

from __future__ import annotations

from typing import Any

from detector_agreement import differences

__all__ = ["assert_close"]

LIMITS = {
    **dict.fromkeys(("pred_boxes", "proposal_boxes", "pred_keypoints"), 1e-2),
    **dict.fromkeys(("count", "classes", "segments"), 0.0),
    "pred_masks": 1e-3,
    "panoptic_seg": 1e-3,
}
"""Differences of engines: pixels, none, and shares of pixels: rounding decides those at a
threshold."""
RELATIVE = 1e-4
"""The difference of any other output: a probability, or a share of its largest magnitude."""


def assert_close(actual: Any, expected: Any, wider: float = 1.0) -> None:
    found = differences(actual, expected)
    limits = {name: wider * LIMITS.get(name, RELATIVE) for name in found}
    assert all(found[name] <= limits[name] for name in found), found
