"""Turns a detector's example images into what clients send, and that back into its input."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detector_cases import Case
from torch import Tensor

from fxtrt.serving.decode import ImageLimits, decode
from fxtrt.serving.detections import outputs_of

__all__ = ["FromPixels", "Sent", "numbers_of", "sent_images"]


@dataclass(frozen=True, slots=True)
class Sent:
    """Images of one form.

    payloads: tensors (3, H, W), or bytes of JPEG files.
    pixels:   what a server makes of them: tensors.
    """

    payloads: Sequence[Any]
    pixels: Sequence[Tensor]


@dataclass(frozen=True, slots=True)
class FromPixels:
    """Calls a model with images as clients send them: tensors (3, H, W), float or uint8.

    uint8 becomes float where the model runs, so that a quarter of the bytes goes there.
    """

    model: Callable[[list[Any]], Any]
    package: str
    original: tuple[int, int]
    """The height and width that Detectron2 gives its answers for."""

    def __call__(self, images: list[Tensor]) -> Any:
        return self.model(self.inputs(images))

    def inputs(self, images: list[Tensor]) -> list[Any]:
        """Return what the model takes."""
        return [self._input(image) for image in images]

    def _input(self, image: Tensor) -> Any:
        pixels = image.float() if image.dtype == torch.uint8 else image
        if self.package == "detectron2":
            height, width = self.original
            return {"image": pixels, "height": height, "width": width}
        return pixels / 255 if image.dtype == torch.uint8 else pixels


def sent_images(
    case: Case, size: tuple[int, int], form: str, count: int, device: torch.device | None
) -> tuple[Sent, tuple[int, int]]:
    """Return images of a form, and the height and width of the pictures for Detectron2.

    Args:
        form: "float", "uint8" or "jpeg".
        device: where JPEG files are decoded.
    """
    made = case.images(count, size)
    if case.package == "detectron2":
        original = made[0]["height"], made[0]["width"]
        floats, scale = [one["image"] for one in made], 1.0
    else:
        original, floats, scale = size, made, 255.0
    if form == "float":
        return Sent(floats, floats), original
    pixels = [(one * scale).round().clamp(0, 255).to(torch.uint8) for one in floats]
    if form == "uint8":
        return Sent(pixels, pixels), original
    files = [_jpeg(one) for one in pixels]
    return Sent(files, [decode(file, ImageLimits(), device).cpu() for file in files]), original


def _jpeg(pixels: Tensor) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=95)
    return file.getvalue()


def numbers_of(answer: Any) -> dict[str, Tensor]:
    """Return the boxes, scores and labels of an answer of either package, on the CPU."""
    outputs = outputs_of(answer)
    if "instances" in outputs:
        outputs = outputs_of(outputs["instances"])
    names = {"pred_boxes": "boxes", "pred_classes": "labels"}
    found = {names.get(name, name): value for name, value in outputs.items()}
    return {name: torch.as_tensor(found[name]).cpu() for name in ("boxes", "scores", "labels")}
