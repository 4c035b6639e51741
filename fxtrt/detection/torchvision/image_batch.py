"""Turn a list of pictures into a padded batch, as the transform of torchvision's detectors does."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..core_batch import varying_batch, varying_sides
from ..host_steps import unchanged
from ..small_tables import SmallTables

__all__ = ["ImageBatch", "core_shapes", "read_images"]


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


def read_images(
    transform: Any, pictures: Iterable[Tensor], tables: SmallTables, *, places_boxes: bool
) -> ImageBatch:
    """Run a detector's own transform.

    Args:
        pictures: (3, height, width) each, floating point.
        places_boxes: whether the core scales boxes to the pictures; the transform does otherwise.
    """
    pictures = list(pictures)
    sizes = [(int(one.shape[-2]), int(one.shape[-1])) for one in pictures]
    batch, resized = _transformed(transform, pictures)
    scales = tuple(
        (width / resized_width, height / resized_height)
        for (height, width), (resized_height, resized_width) in zip(sizes, resized, strict=True)
    )
    factors = tuple(pair * 2 if places_boxes else (1.0,) * 4 for pair in scales)
    limits = tuple((math.inf,) * 4 for _ in sizes)
    on_device = tables.on(batch.device, tuple(resized), factors, limits)
    return ImageBatch((batch, on_device[0], on_device[1], on_device[2]), resized, sizes, scales)


def _transformed(transform: Any, pictures: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return the batch, and heights and widths without the padding."""
    own = unchanged(transform, GeneralizedRCNNTransform, "forward", "normalize")
    if not (own and all(map(_is_usual, pictures))):
        batch, _ = transform(pictures)
        return batch.tensors, [(int(height), int(width)) for height, width in batch.image_sizes]
    images = [transform.resize(_normalized(transform, picture))[0] for picture in pictures]
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    return transform.batch_images(images, size_divisible=transform.size_divisible), sizes


def _is_usual(picture: Tensor) -> bool:
    """Return whether a transform takes the picture. If not, the transform says what is wrong."""
    return picture.ndim == 3 and picture.is_floating_point()


def _normalized(transform: Any, picture: Tensor) -> Tensor:
    """Compute what `GeneralizedRCNNTransform.normalize` does, which waits for the GPU twice."""
    moments = (tuple(map(float, m)) for m in (transform.image_mean, transform.image_std))
    mean, std = (_column(values, picture.dtype, picture.device) for values in moments)
    return (picture - mean) / std


@functools.lru_cache(maxsize=64)
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def core_shapes(inputs: tuple[Tensor, ...], most_images: int, transform: Any, coarsest: int) -> Any:
    """Return the dynamic sizes of a core's inputs, the images first.

    Sides vary up to the longest that the transform makes, unless it gives all images one size.

    Args:
        coarsest: the largest stride of the levels.

    Raises:
        CaptureError: the example is too small for that.
    """
    if getattr(transform, "fixed_size", None) is not None:
        return varying_batch(inputs, most_images)
    step = max(int(getattr(transform, "size_divisible", 1)), 1)
    longest = math.ceil(getattr(transform, "max_size", 0) / step) * step
    return varying_sides(inputs, most_images, step, coarsest, longest)
