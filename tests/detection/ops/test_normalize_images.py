"""`fxtrt::normalize_images` gives what the libraries' normalisation and padding give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection.transform import GeneralizedRCNNTransform

from fxtrt.detection.ops.normalize_images import normalize_images

MEAN, STD = torch.tensor([103.53, 116.28, 123.675]), torch.tensor([57.375, 57.12, 58.395])


def images_of(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [(20, 31), (32, 9), (1, 1)]
    return [torch.randint(0, 256, (3, *size), generator=generator).to(dtype) for size in sizes]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
def test_each_image_is_normalized_and_padded_with_zeros(dtype: torch.dtype) -> None:
    images = images_of(dtype)
    batch = normalize_images(images, MEAN, STD, 32, 64)
    assert batch.dtype == torch.float32
    for image, actual in zip(images, batch, strict=True):
        height, width = image.shape[1:]
        expected = ((image - MEAN[:, None, None]) / STD[:, None, None]).float()
        assert torch.equal(actual[:, :height, :width], expected)
        assert not actual[:, height:].any()
        assert not actual[:, :, width:].any()


def test_equals_torchvisions_transform() -> None:
    transform = GeneralizedRCNNTransform(9, 99, MEAN.tolist(), STD.tolist(), size_divisible=16)
    images = images_of(torch.float32)
    expected = transform.batch_images([transform.normalize(image) for image in images], 16)
    assert torch.equal(normalize_images(images, MEAN, STD, *expected.shape[2:]), expected)


def test_rows_of_pixels_may_lie_anywhere() -> None:
    """As in a picture whose channels are its last dimension."""
    image = images_of(torch.uint8)[0]
    permuted = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    expected = normalize_images([image], MEAN, STD, 20, 40)
    assert torch.equal(normalize_images([permuted], MEAN, STD, 20, 40), expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 33, 20), "image 1 has 33x20 pixels, more than the batch of 32x32"),
        ((3, 20, 33), "image 1 has 20x33 pixels, more than the batch of 32x32"),
        ((1, 20, 20), r"image 1 has the shape \(1, 20, 20\); expected 3 channels"),
        ((20, 20), r"image 1 has the shape \(20, 20\); expected 3 channels"),
    ],
)
def test_an_image_that_does_not_fit_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalize_images([torch.zeros(3, 9, 9), torch.zeros(shape)], MEAN, STD, 32, 32)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_fake_agrees(dtype: torch.dtype) -> None:
    arguments = (images_of(dtype), MEAN, STD, 32, 32)
    torch.library.opcheck(
        normalize_images, arguments, test_utils=("test_schema", "test_faketensor")
    )
