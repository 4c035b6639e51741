"""Compare the kernels that read and write regions with the operators' CPU implementations.

Each check takes the device: on a GPU Triton compiles the kernels; on the CPU its interpreter runs
them, which has to be chosen before Triton is imported, so in a process of its own. Run as a script
this module does that, and prints a line of JSON for each check: its name, and its traceback if it
fails.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable

import torch
from torch import Tensor
from torch.testing import assert_close

from fxtrt.detection.ops.keypoints_of_heatmaps import keypoints_of_heatmaps
from fxtrt.detection.ops.multilevel_roi_align import multilevel_roi_align
from fxtrt.detection.ops.normalize_images import normalize_images
from fxtrt.detection.ops.paste_masks import paste_masks
from fxtrt.detection.ops.paste_masks_in_image import paste_masks_in_image

__all__ = ["CHECKS"]

HEIGHT, WIDTH = 40, 52
BOXES = torch.tensor(
    [
        [3.25, 2.5, 20.75, 17.0],
        [0, 0, 52, 40],
        [-9.5, -7, 61, 48.5],
        [30, 1, 31, 39.5],
        [5, 5, 5, 5],
        [9, 9, 9, 20],
        [12, 30, 8, 33],
        [12, 9, 8, 5],
        [2, 2, 30, 30],
        [60, 50, 70, 70],
        [torch.nan, 0, 9, 9],
        [0, 0, torch.inf, 9],
    ]
)
"""Of all levels, empty, reversed, at the border of two levels, outside, and not finite."""


def pool(device: str, dtype: torch.dtype, channels_last: bool, *rule: object) -> None:
    """Pool two images, of which the second has fewer boxes; `rule` is that of the operator."""
    levels, size, sampling_ratio, aligned, library = rule
    assert isinstance(levels, int)
    generator = torch.Generator().manual_seed(levels)
    shapes = [(2, 5, max(1, 20 >> i), max(1, 26 >> i)) for i in range(levels)]
    features = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    boxes = torch.stack([BOXES, BOXES.flip(0)])
    counts = torch.tensor([len(BOXES), 5], dtype=torch.int32)
    arguments = ([0.5 / 2**i for i in range(levels)], size, sampling_ratio, aligned, 28, 2, library)
    expected = multilevel_roi_align(features, boxes, counts, *arguments)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    moved = [feature.to(device, memory_format=memory_format) for feature in features]
    actual = _pool(moved, boxes.to(device), counts.to(device), *arguments)
    assert actual.is_contiguous()
    if device == "cpu" and dtype == torch.float32:
        assert torch.equal(actual, expected)
    assert_close(actual.cpu(), expected)
    assert not actual[len(BOXES) + 5 :].any()


def paste(device: str, dtype: torch.dtype) -> None:
    masks = _random(len(BOXES), 7, 7).to(dtype)
    from fxtrt.detection.kernels.paste_masks import paste

    for threshold in (0.0, 0.5):
        expected = paste_masks(masks, BOXES, HEIGHT, WIDTH, threshold)
        actual = paste(masks.to(device), BOXES.to(device), HEIGHT, WIDTH, threshold)
        assert (actual.cpu() != expected).sum() <= (0 if device == "cpu" else 2)


def paste_resized(device: str, dtype: torch.dtype) -> None:
    """torchvision's function fails for boxes outside of the image, where the kernel gives zeros."""
    from fxtrt.detection.kernels.paste_resized_masks import paste_resized

    masks = _random(len(BOXES), 1, 7, 7).to(dtype)
    shape = (HEIGHT, WIDTH)
    for padding in (0, 1):
        expected = paste_masks_in_image(masks[:6], BOXES[:6], shape, padding)
        actual = paste_resized(masks.to(device), BOXES.to(device), shape, padding)
        # In float16 torchvision rounds between rows and columns too.
        tolerance = 1e-5 if dtype == torch.float32 else 1e-3
        assert_close(actual[:6].cpu(), expected, rtol=0, atol=tolerance)
        assert not actual[9:].any()


def normalize(device: str) -> None:
    from fxtrt.detection.kernels.normalize_images import normalize

    mean, std = torch.tensor([103.53, 116.28, 123.675]), torch.tensor([57.375, 57.12, 58.395])
    pixels = (_random(3, 20, 31) * 255).to(torch.uint8)
    images = [pixels, pixels.half(), pixels.float().permute(0, 2, 1), pixels[:, ::2, ::3]]
    expected = normalize_images(images, mean, std, 32, 32)
    moved = [image.to(device) for image in images]
    assert torch.equal(normalize(moved, mean.to(device), std.to(device), 32, 32).cpu(), expected)


def keypoints(device: str, kind: str) -> None:
    from fxtrt.detection.kernels.keypoints import peaks

    maps = _random(len(BOXES), 2, 6, 6) if kind == "random" else torch.zeros(len(BOXES), 2, 6, 6)
    expected = keypoints_of_heatmaps(maps, BOXES)
    actual = peaks(maps.to(device), BOXES.to(device))
    assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)


def _pool(*arguments: object) -> Tensor:
    from fxtrt.detection.kernels.roi_align import pool

    return pool(*arguments)  # type: ignore[arg-type]  # those of the operator


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


CHECKS: dict[str, Callable[[str], None]] = {
    "pool one level": lambda device: pool(
        device, torch.float32, False, 1, [2, 3], 0, True, "detectron2"
    ),
    "pool adaptively": lambda device: pool(
        device, torch.float32, False, 4, [3, 3], 0, True, "detectron2"
    ),
    "pool unaligned": lambda device: pool(
        device, torch.float32, True, 4, [3, 3], 0, False, "torchvision"
    ),
    "pool two samples": lambda device: pool(
        device, torch.float32, True, 3, [7, 7], 2, True, "torchvision"
    ),
    "pool six levels": lambda device: pool(
        device, torch.float16, True, 6, [2, 2], 2, False, "detectron2"
    ),
    "pool float16": lambda device: pool(
        device, torch.float16, False, 4, [9, 9], 0, True, "detectron2"
    ),
    "paste float32": lambda device: paste(device, torch.float32),
    "paste float16": lambda device: paste(device, torch.float16),
    "paste resized float32": lambda device: paste_resized(device, torch.float32),
    "paste resized float16": lambda device: paste_resized(device, torch.float16),
    "normalize": normalize,
    "keypoints": lambda device: keypoints(device, "random"),
    "keypoints of flat maps": lambda device: keypoints(device, "flat"),
}


def _main() -> None:
    for name, check in CHECKS.items():
        try:
            check("cpu")
            failure = None
        except Exception:
            failure = traceback.format_exc()
        print(json.dumps([name, failure]), flush=True)


if __name__ == "__main__":
    _main()
