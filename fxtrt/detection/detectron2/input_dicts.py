"""Turn input dicts into a normalized, padded batch by Detectron2's rules, without its code."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..normalized_batch import normalized_batch
from ..small_tables import SmallTables

__all__ = ["ImageBatch", "normalized", "padded_sides", "with_tables"]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """The inputs of a core for one call, and the sizes that turn its outputs into results.

    inputs:   the images, normalized and padded, (B, 3, H, W); (B, 2) heights and widths; (B, 4)
              scales of boxes; (B, 4) limits of boxes.
    sizes:    height and width of each image without its padding.
    pictures: height and width of the pictures that detections are scaled to.
    scales:   by which factors, horizontal and vertical.
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    sizes: Sequence[tuple[int, int]]
    pictures: Sequence[tuple[int, int]]
    scales: Sequence[tuple[float, float]]


def normalized(
    images: Sequence[Tensor],
    mean: Tensor,
    std: Tensor,
    size_divisibility: int,
    padding_constraints: Mapping[str, int] | None,
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Return normalized, padded images, and their heights and widths without the padding.

    Args:
        images: (3, h, w) each, on any device.
        mean, std: (3, 1, 1), on the device of the batch.
    """
    images = [image.to(mean.device) for image in images]
    if any(image.ndim != 3 for image in images):
        raise ValueError("an image has other dimensions than channels, height and width")
    sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
    height, width = padded_sides(sizes, size_divisibility, padding_constraints)
    return normalized_batch(images, mean, std, int(height), int(width)), sizes


def with_tables(
    images: Tensor,
    sizes: tuple[tuple[int, int], ...],
    batched_inputs: Sequence[Mapping[str, Any]],
    tables: SmallTables,
) -> ImageBatch:
    """Add the tables of sizes to a batch of images.

    Raises:
        ValueError: a size of a picture is no whole number.
    """
    pictures = tuple(
        (one.get("height", height), one.get("width", width))
        for one, (height, width) in zip(batched_inputs, sizes, strict=True)
    )
    if not all(isinstance(side, Integral) for sides in pictures for side in sides):
        raise ValueError("a picture's height or width is no whole number")
    scales = tuple(
        (across / width, down / height)
        for (down, across), (height, width) in zip(pictures, sizes, strict=True)
    )
    limits = tuple((width, height) * 2 for height, width in pictures)
    twice = tuple(scale * 2 for scale in scales)
    of_images, of_scales, of_limits = tables.on(images.device, sizes, twice, limits)
    return ImageBatch((images, of_images, of_scales, of_limits), sizes, pictures, scales)


def padded_sides(
    sizes: Sequence[tuple[Any, Any]],
    size_divisibility: int,
    padding_constraints: Mapping[str, int] | None,
) -> tuple[Any, Any]:
    """Return the height and width that `ImageList.from_tensors` pads images of these sizes to."""
    constraints = padding_constraints or {}
    stride = max(constraints.get("size_divisibility", size_divisibility), 1)
    square = constraints.get("square_size", 0)
    columns = zip(*sizes, strict=True)
    most = (square or functools.reduce(torch.sym_max, column) for column in columns)
    height, width = ((size + stride - 1) // stride * stride for size in most)
    return height, width
