"""Turns two answers of a detector into the share of detections that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fxtrt.numerics.compare import fields_of
from fxtrt.numerics.matching import assign, overlaps

__all__ = ["Agreement", "agreement"]

_LEAST_COUNT = 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of comparing two answers of a detector.

    share:     the share of the detections above the threshold that the other answer has too, with
               the same class; the smaller of both directions.
    compared:  how many detections were looked for, in both directions together.
    boxes:     the largest difference of a coordinate among the pairs, in pixels.
    scores:    the largest difference of a score among the pairs.
    pixels:    the smallest share of equal pixels of panoptic and semantic images; 1 without any.
    """

    share: float
    compared: int
    boxes: float = 0.0
    scores: float = 0.0
    pixels: float = 1.0


def agreement(
    actual: Sequence[Any], expected: Sequence[Any], *, score: float = 0.3, iou: float = 0.95
) -> Agreement:
    """Compare the answers for a batch of images.

    Detections are looked for if their score exceeds `score`, and the ten best of each image in any
    case: an image without any would agree with everything.

    Args:
        actual, expected: dicts of torchvision or of Detectron2, one for each image.
        iou: what the boxes of a pair overlap by at least.
    """
    if len(actual) != len(expected):
        raise ValueError(f"there are {len(actual)} answers, expected {len(expected)}")
    found, compared, boxes, scores, pixels = [0, 0], [0, 0], 0.0, 0.0, 1.0
    for one, other in zip(actual, expected, strict=True):
        if (sides := _detections(one, other)) is not None:
            for i, (a, b) in enumerate((sides, sides[::-1])):
                indices, partners = _pairs(a, b, score, iou)
                compared[i] += len(indices)
                kept = partners >= 0
                found[i] += int(kept.sum())
                pair = a, indices[kept], b, partners[kept]
                boxes = max(boxes, _largest("boxes", *pair))
                scores = max(scores, _largest("scores", *pair))
        pixels = min(pixels, _equal_pixels(one, other))
    shares = [hits / count if count else 1.0 for hits, count in zip(found, compared, strict=True)]
    return Agreement(min(shares), sum(compared), boxes, scores, pixels)


def _detections(one: Any, other: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None:
    if "boxes" in other:
        return one, other
    if "instances" in other:
        return fields_of(one["instances"]), fields_of(other["instances"])
    return None


def _pairs(
    side: Mapping[str, Tensor], other: Mapping[str, Tensor], score: float, iou: float
) -> tuple[Tensor, Tensor]:
    """Return the detections of `side` to look for, and the partner of each in `other`, or -1."""
    scores = side["scores"].float()
    wanted = scores > score
    wanted[scores.topk(min(_LEAST_COUNT, len(scores))).indices] = True
    indices = wanted.nonzero()[:, 0]
    indices = indices[scores[indices].argsort(descending=True, stable=True)]
    overlap = overlaps(side["boxes"][indices], other["boxes"])
    fits = (overlap > iou) & (side["labels"][indices][:, None] == other["labels"])
    gap = (scores[indices][:, None] - other["scores"].float()).abs()
    # Equal boxes are told apart by their scores.
    return indices, assign(overlap - gap / 100, fits)


def _largest(
    field: str,
    side: Mapping[str, Tensor],
    indices: Tensor,
    other: Mapping[str, Tensor],
    partners: Tensor,
) -> float:
    gap = (side[field][indices].double() - other[field][partners].double()).abs()
    return float(gap.max()) if gap.numel() else 0.0


def _equal_pixels(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    if "sem_seg" not in other:
        return 1.0
    same = one["sem_seg"].argmax(0) == other["sem_seg"].argmax(0)
    return float(same.float().mean())
