"""A normalized batch is what the libraries' normalization and padding give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection.transform import GeneralizedRCNNTransform

from fxtrt.detection.normalized_batch import normalized_batch

MEAN = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
STD = torch.tensor([57.375, 57.12, 58.395])[:, None, None]


def images_of(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(20, 31), (32, 9), (1, 1)]
    return [torch.randint(0, 256, (3, *size), generator=generator).to(dtype) for size in sizes]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_each_image_is_normalized_and_padded_with_zeros(dtype: torch.dtype) -> None:
    images = images_of(dtype)
    batch = normalized_batch(images, MEAN, STD, 32, 64)
    assert batch.dtype == torch.float32
    for image, actual in zip(images, batch, strict=True):
        height, width = image.shape[1:]
        expected = ((image - MEAN) / STD).float()
        assert torch.equal(actual[:, :height, :width], expected)
        assert not actual[:, height:].any()
        assert not actual[:, :, width:].any()


def test_equals_torchvisions_transform() -> None:
    transform = GeneralizedRCNNTransform(
        9, 99, MEAN.flatten().tolist(), STD.flatten().tolist(), size_divisible=16
    )
    images = images_of(torch.float32)
    expected = transform.batch_images([transform.normalize(image) for image in images], 16)
    assert torch.equal(normalized_batch(images, MEAN, STD, *expected.shape[2:]), expected)


def test_rows_of_pixels_may_lie_anywhere() -> None:
    """A picture may have been stored with its channels as the last dimension."""
    image = images_of(torch.uint8)[0]
    permuted = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    expected = normalized_batch([image], MEAN, STD, 20, 40)
    assert torch.equal(normalized_batch([permuted], MEAN, STD, 20, 40), expected)
