"""Define `fxtrt::normalize_images`, which makes one normalised, padded batch of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..kernels.available import TRITON

__all__ = ["normalize_images", "normalized"]

_OF_KERNEL = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)


@custom_op("fxtrt::normalize_images", mutates_args=())
def normalize_images(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int
) -> Tensor:
    """Subtract the mean, divide by the deviation, and pad with zeros to one size.

    Args:
        images: (C, h, w) each, uint8 or floating point; those on the CPU are copied to the GPU.
        mean: (C,)
        std: (C,)

    Returns:
        (B, C, height, width), float32.
    """
    _require_fits(images, len(mean), height, width)
    return _composed(images, mean, std, height, width)


def normalized(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int
) -> Tensor:
    """Compute what the operator computes, without the time that its dispatch takes."""
    if not mean.is_cuda:
        return normalize_images(list(images), mean, std, height, width)
    _require_fits(images, len(mean), height, width)
    images = [image.to(mean.device) for image in images]
    if TRITON and mean.dtype == std.dtype == torch.float32 and _of_kernel(images):
        from ..kernels.normalize_images import normalize

        return normalize(images, mean, std, height, width)
    return _composed(images, mean, std, height, width)


normalize_images.register_kernel("cuda")(normalized)


def _of_kernel(images: Sequence[Tensor]) -> bool:
    """Tell whether float32 holds every pixel of all images."""
    return all(image.dtype in _OF_KERNEL for image in images)


def _composed(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int
) -> Tensor:
    batch = mean.new_zeros((len(images), len(mean), height, width), dtype=torch.float32)
    for image, padded in zip(images, batch, strict=True):
        normalized = (image - mean[:, None, None]) / std[:, None, None]
        padded[:, : image.shape[1], : image.shape[2]] = normalized
    return batch


def _require_fits(images: Sequence[Tensor], channels: int, height: int, width: int) -> None:
    """Raise a ValueError if an image has other channels or is larger than the batch."""
    for index, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != channels:
            raise ValueError(
                f"image {index} has the shape {tuple(image.shape)}; "
                f"expected {channels} channels, rows and columns"
            )
        if image.shape[1] > height or image.shape[2] > width:
            raise ValueError(
                f"image {index} has {image.shape[1]}x{image.shape[2]} pixels, more than the batch "
                f"of {height}x{width}; enlarge the batch or make the image smaller"
            )


@normalize_images.register_fake
def _(images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int) -> Tensor:
    shape = (len(images), mean.shape[0], height, width)
    return mean.new_empty(shape, dtype=torch.float32)


explain("fxtrt::normalize_images", "it reads a list of images of different sizes")
