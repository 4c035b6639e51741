"""Turn what a detector or an annotation says about an image into checked tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import AccuracyError
from ..numerics.compare import fields_of

__all__ = ["Detections", "annotated", "detected", "is_detection", "same_length"]

_MASK_THRESHOLD = 0.5
"""torchvision's masks are probabilities; Detectron2's are booleans, and pass this as well."""


@dataclass(frozen=True, slots=True)
class Detections:
    """Hold what an image shows.

    boxes:  (N, 4) float64, corners x1, y1, x2, y2 in pixels.
    labels: (N,) int64.
    scores: (N,) float64; 1 for annotations.
    masks:  (N, pixels) bool, or None.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor | None = None

    @property
    def numbers(self) -> Tensor:
        """Tell of each detection, (N,) bool, whether its box and its score are finite numbers."""
        return self.boxes.isfinite().all(1) & self.scores.isfinite()


def same_length(predictions: Sequence[Any], others: Sequence[Any], name: str) -> None:
    """Raise AccuracyError unless both have one entry for each image, and there is one."""
    if len(predictions) != len(others):
        raise AccuracyError(
            f"there are predictions for {len(predictions)} images, but {name} for {len(others)}: "
            f"both need one entry for each image"
        )
    if not len(predictions):
        raise AccuracyError("there are no images to judge by: give at least one")


def is_detection(prediction: Any) -> bool:
    """Tell whether a prediction has boxes, as opposed to a classifier's logits."""
    return isinstance(prediction, Mapping) or hasattr(prediction, "get_fields")


def detected(prediction: Any, name: str) -> Detections:
    """Return the detections in a dict of torchvision or in Detectron2's `Instances`.

    Args:
        name: what errors call the prediction.
    """
    if isinstance(prediction, Mapping) and "instances" in prediction:
        prediction = prediction["instances"]
    fields = fields_of(prediction) if hasattr(prediction, "get_fields") else prediction
    values = _required(fields, ("boxes", "labels", "scores"), name)
    masks = fields.get("masks", fields.get("pred_masks"))
    if masks is not None:
        masks = _masks(masks, len(values["boxes"]), name)
    return Detections(**values, masks=masks)


def annotated(annotation: Any, name: str) -> Detections:
    """Return what an annotation with `boxes` and `labels` says; all of it must be sound."""
    values = _required(annotation, ("boxes", "labels"), name)
    found = Detections(**values, scores=values["boxes"].new_ones(len(values["boxes"])))
    sound = found.numbers & (found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
    if not sound.all():
        row = int((~sound).nonzero()[0])
        raise AccuracyError(
            f"{name}: box {row} is {found.boxes[row].tolist()}, "
            f"expected corners x1 < x2 and y1 < y2 in pixels"
        )
    return found


def _required(fields: Any, keys: tuple[str, ...], name: str) -> dict[str, Tensor]:
    if not isinstance(fields, Mapping) or not set(keys) <= set(fields):
        given = sorted(map(str, fields)) if isinstance(fields, Mapping) else type(fields).__name__
        raise AccuracyError(f"{name} has {given}, expected a mapping with {', '.join(keys)}")
    values = {key: torch.as_tensor(fields[key]).detach() for key in keys}
    values["boxes"] = boxes = _boxes(values["boxes"], name)
    for key in keys[1:]:
        if values[key].shape != (len(boxes),):
            raise AccuracyError(
                f"{name}: {key} have the shape {tuple(values[key].shape)}, "
                f"expected ({len(boxes)},): one for each box"
            )
    labels = values["labels"]
    if labels.numel() and labels.is_floating_point():
        raise AccuracyError(f"{name}: labels have the dtype {labels.dtype}, expected integers")
    dtypes = {"boxes": torch.float64, "labels": torch.int64, "scores": torch.float64}
    return {key: value.to("cpu", dtypes[key]) for key, value in values.items()}


def _boxes(boxes: Tensor, name: str) -> Tensor:
    if boxes.shape == (0,):
        return boxes.reshape(0, 4)  # what an empty list becomes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise AccuracyError(
            f"{name}: boxes have the shape {tuple(boxes.shape)}, expected (N, 4): x1, y1, x2, y2"
        )
    return boxes


def _masks(masks: Any, count: int, name: str) -> Tensor:
    masks = torch.as_tensor(masks).detach()
    if not 3 <= masks.ndim <= 4 or len(masks) != count:
        raise AccuracyError(
            f"{name}: masks have the shape {tuple(masks.shape)}, expected one for each of the "
            f"{count} boxes: ({count}, H, W) or ({count}, 1, H, W)"
        )
    inside: Tensor = masks.reshape(count, -1 if count else 0) > _MASK_THRESHOLD
    return inside
