"""Define `fxtrt::normalize_images`, which makes one normalised, padded batch of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["normalize_images"]


@custom_op("fxtrt::normalize_images", mutates_args=())
def normalize_images(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int
) -> Tensor:
    """Subtract the mean, divide by the deviation, and pad with zeros to one size.

    Args:
        images: (C, h, w) each, uint8 or floating point.
        mean: (C,)
        std: (C,)

    Returns:
        (B, C, height, width), float32.
    """
    channels = len(mean)
    batch = mean.new_zeros((len(images), channels, height, width), dtype=torch.float32)
    for image, padded in zip(images, batch, strict=True):
        require_fits(image, channels, height, width)
        normalized = (image - mean[:, None, None]) / std[:, None, None]
        padded[:, : image.shape[1], : image.shape[2]] = normalized
    return batch


def require_fits(image: Tensor, channels: int, height: int, width: int) -> None:
    """Raise a ValueError if the image has other channels or is larger than the batch."""
    if image.ndim != 3 or image.shape[0] != channels:
        raise ValueError(
            f"an image has the shape {tuple(image.shape)}; expected {channels} channels, "
            "rows and columns"
        )
    if image.shape[1] > height or image.shape[2] > width:
        raise ValueError(
            f"an image of {image.shape[1]}x{image.shape[2]} pixels does not fit into a batch of "
            f"{height}x{width}; enlarge the batch or make the image smaller"
        )


@normalize_images.register_fake
def _(images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int) -> Tensor:
    shape = (len(images), mean.shape[0], height, width)
    return mean.new_empty(shape, dtype=torch.float32)


explain("fxtrt::normalize_images", "it reads a list of images of different sizes")
