"""Turn a list of pictures into a padded batch, as the transform of torchvision's detectors does."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..core_batch import varying_batch, varying_sides
from ..host_steps import unchanged
from ..small_tables import SmallTables
from .pictures import ImageBatch, PictureRules, with_tables

__all__ = ["core_shapes", "read_images", "rules_of"]

_READING = ("forward", "normalize", "resize", "batch_images", "max_by_axis")


def read_images(
    transform: Any, pictures: Iterable[Tensor], tables: SmallTables, *, places_boxes: bool
) -> ImageBatch:
    """Do what a detector's own transform does.

    Args:
        pictures: (3, height, width) each, floating point.
        places_boxes: whether the core scales boxes to the pictures; the transform does otherwise.
    """
    pictures = list(pictures)
    sizes = [(int(one.shape[-2]), int(one.shape[-1])) for one in pictures]
    rules = rules_of(transform) if all(map(_is_usual, pictures)) else None
    if isinstance(rules, PictureRules):
        batch, resized = rules.batch(pictures)
    else:
        images, _ = transform(pictures)
        batch = images.tensors
        resized = [(int(height), int(width)) for height, width in images.image_sizes]
    return with_tables(batch, resized, sizes, tables, places_boxes=places_boxes)


def _is_usual(picture: Tensor) -> bool:
    """Return whether a transform takes the picture. If not, the transform says what is wrong."""
    return picture.ndim == 3 and picture.is_floating_point()


def rules_of(transform: Any) -> PictureRules | str:
    """Return the rules of a transform as they are now, or why it has others than torchvision's."""
    if not unchanged(transform, GeneralizedRCNNTransform, *_READING):
        return f"{type(transform).__name__} reads images in a way of its own"
    sizes = (transform.min_size[-1], transform.max_size, transform.size_divisible)
    if any(type(size) is not int for size in sizes):
        return f"{type(transform).__name__} has sizes that are no whole numbers"
    mean, std = (
        tuple(map(float, values)) for values in (transform.image_mean, transform.image_std)
    )
    fixed = transform.fixed_size
    return PictureRules(mean, std, *sizes, None if fixed is None else (fixed[0], fixed[1]))


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
