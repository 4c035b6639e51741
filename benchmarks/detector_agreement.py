"""Turns two answers of a Detectron2 model into the differences of all their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fxtrt.numerics.compare import largest_gap, pair

__all__ = ["count_segments", "differences"]


def differences(actual: Sequence[Any], expected: Sequence[Any]) -> dict[str, float]:
    """Return the largest difference of each field, over all images.

    Fields have Detectron2's names. Boxes and keypoints differ by pixels, scores by probabilities,
    masks and `panoptic_seg` by the share of different pixels. `classes` counts pairs of different
    classes; `count` and `segments` count the detections and segments that only one answer has. Any
    other difference is a share of the field's largest magnitude.
    """
    largest: dict[str, float] = {}
    for one, wanted in zip(actual, expected, strict=True):
        for name, value in _of_image(one, wanted).items():
            largest[name] = max(largest.get(name, 0.0), value)
    return largest


def _of_image(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    if actual.keys() != expected.keys():
        raise ValueError(f"the outputs are {sorted(actual)}, expected {sorted(expected)}")
    found: dict[str, float] = {}
    for key, value in expected.items():
        if key == "sem_seg":
            found[key] = _relative(actual[key], value)
        elif key == "panoptic_seg":
            (pixels, segments), (wanted, others) = actual[key], value
            found[key] = _share(pixels, wanted)
            found["segments"] = abs(
                count_segments(pixels, segments) - count_segments(wanted, others)
            )
        else:
            found |= _of_instances(actual[key], value)
    return found


def count_segments(pixels: Tensor, segments: Sequence[Any] | None) -> int:
    """Return the number of segments.

    Panoptic-DeepLab lists none: there, each value of a pixel but -1 is a segment.
    """
    return len(torch.unique(pixels[pixels != -1])) if segments is None else len(segments)


def _of_instances(actual: Any, expected: Any) -> dict[str, float]:
    sides = [_for_pairing(one) for one in (actual, expected)]
    a, e = pair(*sides)
    labels, wanted = sides[0]["labels"][a], sides[1]["labels"][e]
    found: dict[str, float] = {
        "count": abs(len(actual) - len(expected)),
        "classes": int((labels != wanted).sum()),
    }
    for name, field in expected.get_fields().items():
        value, other = (getattr(f, "tensor", f) for f in (field, actual.get(name)))
        if name != "pred_classes":
            found[name] = _of_field(name, other[a], value[e])
    return found


def _for_pairing(instances: Any) -> dict[str, Tensor]:
    """Return the boxes, scores and labels of detections or proposals."""
    fields = instances.get_fields()
    boxes = fields.get("pred_boxes", fields.get("proposal_boxes")).tensor
    scores = fields.get("scores", fields.get("objectness_logits"))
    labels = fields.get("pred_classes", torch.zeros_like(scores, dtype=torch.int64))
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _of_field(name: str, actual: Tensor, expected: Tensor) -> float:
    if expected.dtype == torch.bool:
        return _share(actual, expected)
    if name in ("pred_boxes", "proposal_boxes", "scores", "pred_keypoints"):
        return largest_gap(actual, expected)
    return _relative(actual, expected)


def _share(actual: Tensor, expected: Tensor) -> float:
    """Return the share of different pixels in the worst picture."""
    shares = (actual != expected).double().mean(dim=(-2, -1))
    return float(shares.max()) if shares.numel() else 0.0


def _relative(actual: Tensor, expected: Tensor) -> float:
    finite = expected[expected.isfinite()]
    return largest_gap(actual, expected) / (float(finite.abs().max()) if finite.numel() else 1.0)
