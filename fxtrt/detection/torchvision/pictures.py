"""Turn pictures into a batch by torchvision's rules, without torchvision's code."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..small_tables import SmallTables

__all__ = ["ImageBatch", "PictureRules", "with_tables"]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """The inputs of a core for one call, and the sizes that turn its outputs into results.

    inputs:   the images, normalized, resized and padded, (B, 3, H, W); (B, 2) heights and widths
              without the padding; (B, 4) scales of boxes; (B, 4) limits of boxes, of which
              torchvision has none.
    resized:  height and width of the images without the padding.
    pictures: height and width of the pictures that the caller gave.
    scales:   by which factors, horizontal and vertical, boxes grow from the one to the other.
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    resized: Sequence[tuple[int, int]]
    pictures: Sequence[tuple[int, int]]
    scales: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class PictureRules:
    """The rules by which `GeneralizedRCNNTransform` makes a batch of pictures.

    mean, std:      of each channel.
    min_size:       what the shorter side becomes, unless the longer one exceeds `max_size` then.
    size_divisible: padded sides are multiples of it.
    fixed_size:     width and height of all images, or None.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min_size: int
    max_size: int
    size_divisible: int
    fixed_size: tuple[int, int] | None

    def batch(self, pictures: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """Return the batch, and heights and widths without the padding.

        Args:
            pictures: (3, height, width) each, floating point.
        """
        images = [self._resized(self._normalized(picture)) for picture in pictures]
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        step = self.size_divisible
        height, width = (-(-max(sides) // step) * step for sides in zip(*sizes, strict=True))
        batch = images[0].new_zeros((len(images), images[0].shape[0], height, width))
        for image, padded in zip(images, batch, strict=True):
            padded[:, : image.shape[1], : image.shape[2]].copy_(image)
        return batch, sizes

    def _normalized(self, picture: Tensor) -> Tensor:
        """Compute what torchvision's `normalize` does, which waits for the GPU twice."""
        moments = (self.mean, self.std)
        mean, std = (_column(values, picture.dtype, picture.device) for values in moments)
        return (picture - mean) / std

    def _resized(self, image: Tensor) -> Tensor:
        """Do what `_resize_image_and_masks` does."""
        if self.fixed_size is not None:
            width, height = self.fixed_size
            return interpolate(image[None], (height, width), mode="bilinear", align_corners=False)[
                0
            ]
        sides = image.shape[1:]
        scale = min(self.min_size / min(sides), self.max_size / max(sides))
        resized: Tensor = interpolate(
            image[None],
            scale_factor=scale,
            mode="bilinear",
            recompute_scale_factor=True,
            align_corners=False,
        )
        return resized[0]


@functools.lru_cache(maxsize=64)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def with_tables(
    batch: Tensor,
    resized: Sequence[tuple[int, int]],
    pictures: Sequence[tuple[int, int]],
    tables: SmallTables,
    *,
    places_boxes: bool,
) -> ImageBatch:
    """Add the tables of sizes to a batch of images.

    Args:
        places_boxes: whether the core scales boxes to the pictures; the transform does otherwise.
    """
    scales = tuple(
        (width / resized_width, height / resized_height)
        for (height, width), (resized_height, resized_width) in zip(pictures, resized, strict=True)
    )
    factors = tuple(pair * 2 if places_boxes else (1.0,) * 4 for pair in scales)
    limits = tuple((math.inf,) * 4 for _ in pictures)
    on_device = tables.on(batch.device, tuple(resized), factors, limits)
    return ImageBatch((batch, on_device[0], on_device[1], on_device[2]), resized, pictures, scales)
