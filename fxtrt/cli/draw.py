"""Draws the detections of a model on the photograph that it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes

from ..diagnostics.example_models import Example
from ..errors import SettingsError
from ..numerics.compare import fields_of
from .options import writing

__all__ = ["draw", "require_drawable"]

_MOST = 20
"""The most boxes to draw, by falling score: more would hide the photograph."""


def require_drawable(path: Path) -> None:
    """Refuse a file whose suffix is not that of an image format that Pillow writes.

    Raises:
        SettingsError: there is no such format; the message has usual suffixes.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise SettingsError(f"cannot draw into {path}: name a .png, a .jpg or another image file")


def draw(example: Example, outputs: Any, path: Path) -> None:
    """Save the photograph with the boxes, names and scores of the best detections.

    Args:
        outputs: the outputs of the model for one image.
        path: an image file that `require_drawable` accepts.

    Raises:
        SettingsError: the outputs are no detections, or the file cannot be written.
    """
    if example.photograph is None:
        raise SettingsError("there is no photograph to draw on: --input has stood in for it")
    found = _detections(outputs)
    best = found["scores"].argsort(descending=True)[:_MOST]
    names = [_name(example, int(label)) for label in found["labels"][best]]
    scores = found["scores"][best].tolist()
    texts = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    pixels = (example.photograph.cpu() * 255).round().to(torch.uint8)
    drawn = draw_bounding_boxes(pixels, found["boxes"][best], texts, colors="red", width=2)
    with writing(path):
        to_pil_image(drawn).save(path)


def _detections(outputs: Any) -> dict[str, Tensor]:
    found = outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
    if isinstance(found, dict) and "instances" in found:
        found = fields_of(found["instances"])
    if not isinstance(found, dict) or not {"boxes", "labels", "scores"} <= set(found):
        raise SettingsError("there is nothing to draw: the model gives no boxes with scores")
    return {name: found[name].detach().cpu() for name in ("boxes", "labels", "scores")}


def _name(example: Example, label: int) -> str:
    return example.categories[label] if label < len(example.categories) else f"label {label}"
