"""Turns a decoded picture into the image that a model of a certain kind takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import ProtocolError, SettingsError

__all__ = ["Pictures", "Takes"]

Takes = Literal["torchvision", "detectron2", "tensor"]
"""What a model takes: floats from 0 to 1; Detectron2's dict; or one row of a batched tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """How pictures become images of a model. Only uint8 ones are pictures: floats stay as they are.

    takes:    the kind of model.
    channels: "rgb" or "bgr", the order in which it takes them.
    resize:   for Detectron2, the shorter side that pictures get, and the longest that the other one
              may have; for a tensor, height and width. None leaves the size.
    mean:     what is subtracted from values from 0 to 1, for a tensor.
    std:      what they are then divided by.
    """

    takes: Takes
    channels: Literal["rgb", "bgr"] = "rgb"
    resize: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.takes == "torchvision" and self.resize is not None:
            raise SettingsError("a detector of torchvision resizes images itself: leave out resize")
        if self.takes != "tensor" and (self.mean, self.std) != (None, None):
            raise SettingsError("mean and std are for classifiers: a detector normalizes itself")
        if self.std is not None and not all(self.std):
            raise SettingsError(f"std must not be 0: {self.std}")

    def __call__(self, image: Tensor) -> Any:
        """Return the model's image for one of shape (3, H, W), on the same device."""
        if image.dtype != torch.uint8:
            return image
        if self.channels == "bgr":
            image = image.flip(0)
        if self.takes == "detectron2":
            height, width = image.shape[1:]
            image = image.float()
            if self.resize is not None:
                image = _resized(image, _sides(height, width, *self.resize)).round_().clamp_(0, 255)
            return {"image": image, "height": height, "width": width}
        scaled = image.float() / 255
        if self.takes == "torchvision":
            return scaled
        if self.resize is not None:
            scaled = _resized(scaled, self.resize)
        if self.mean is not None:
            scaled = scaled - scaled.new_tensor(self.mean)[:, None, None]
        if self.std is not None:
            scaled = scaled / scaled.new_tensor(self.std)[:, None, None]
        return scaled


def _sides(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """Return the height and width that Detectron2's `ResizeShortestEdge` gives a picture."""
    scale = min(short / min(height, width), long / max(height, width))
    sides = math.floor(scale * height + 0.5), math.floor(scale * width + 0.5)
    if min(sides) < 1:
        raise ProtocolError(f"a picture of {height} x {width} pixels is too narrow to be resized")
    return sides


def _resized(image: Tensor, sides: tuple[int, int]) -> Tensor:
    """Resize as Pillow does, which looks at all pixels where an image shrinks."""
    if tuple(image.shape[1:]) == sides:
        return image
    return interpolate(image[None], sides, mode="bilinear", align_corners=False, antialias=True)[0]
