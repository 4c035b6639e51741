"""Turn a list of images into one normalized batch with zeros around each image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["normalized_batch"]


def normalized_batch(
    images: Sequence[Tensor], mean: Tensor, std: Tensor, height: int, width: int
) -> Tensor:
    """Subtract the mean, divide by the deviation, and pad with zeros to one size.

    Two kernels for each image write into the batch. A kernel of our own for both would take the
    host longer to launch than it would save on the GPU.

    Args:
        images: (C, h, w) each, uint8 or floating point, no larger than the batch.
        mean, std: (C, 1, 1), float32.

    Returns:
        (B, C, height, width), float32.
    """
    batch = mean.new_zeros((len(images), mean.shape[0], height, width))
    for image, padded in zip(images, batch.unbind(), strict=True):
        inside = padded[:, : image.shape[1], : image.shape[2]]
        torch.sub(image, mean, out=inside).div_(std)
    return batch
