"""The kernels that read and write regions compile for a GPU, in every form that they have."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from kernel_compiler import compiled_kernels, variants

from fxtrt.detection.kernels import (
    paste_masks,
    paste_resized_masks,
    roi_align,
)
from fxtrt.detection.kernels.keypoints import peaks
from fxtrt.detection.kernels.paste_masks import paste
from fxtrt.detection.kernels.paste_resized_masks import paste_resized
from fxtrt.detection.kernels.placing import place
from fxtrt.detection.kernels.roi_align import pool

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="Triton compiles nothing while it interprets"
)
KERNELS = (roi_align, paste_masks, paste_resized_masks)
BOXES = torch.zeros(2, 4)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("dtype", "levels", "sampling_ratio", "library"),
    [(torch.float16, 4, 0, "detectron2"), (torch.float32, 1, 2, "torchvision")],
)
def test_pool(
    dtype: torch.dtype, levels: int, sampling_ratio: int, library: str, channels_last: bool
) -> None:
    features = [torch.zeros(1, 64, 20 >> i, 28 >> i, dtype=dtype) for i in range(levels)]
    if channels_last:
        features = [feature.to(memory_format=torch.channels_last) for feature in features]
    counts = torch.zeros(1, dtype=torch.int32)
    scales = [0.25 / 2**i for i in range(levels)]
    rule = (scales, [7, 7], sampling_ratio, library == "detectron2", 224, 4, library)
    with compiled_kernels() as names:
        pool(features, BOXES[None], counts, *rule)
    assert names == ["_pool"]


def test_place() -> None:
    table = torch.zeros(2, 4)
    with compiled_kernels() as names:
        place(torch.zeros(2, 100, 4), torch.zeros(2).int(), torch.zeros(2).bool(), table, table)
    assert names == ["_place"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_paste_and_peaks(dtype: torch.dtype) -> None:
    masks = torch.zeros(2, 1, 28, 28, dtype=dtype)
    with compiled_kernels() as names:
        paste(masks[:, 0], BOXES, 480, 641, 0.5)
        paste_resized(masks, BOXES, (480, 641))
        peaks(masks, BOXES)
    assert names == ["_paste", "_paste", "_find_peaks", "_describe_peaks"]


def test_images_of_other_sizes_need_no_other_kernels() -> None:
    """Triton compiles anew for integers that are 1 or multiples of 16.

    Only pasting does, which writes 16 pixels at a time where each row begins at such a multiple.
    """
    counts, rule = torch.zeros(1, dtype=torch.int32), ([0.5, 0.25], [7, 7], 0, True, 224, 4)
    compiled = []
    for height, width in ((20, 30), (32, 48), (16, 17), (1, 64), (33, 1)):
        features = [torch.zeros(1, 5, -(-height // s), -(-width // s)) for s in (2, 4)]
        with compiled_kernels():
            pool(features, BOXES[None], counts, *rule, "detectron2")
            paste(torch.zeros(2, 9, 9), BOXES, height + 32, width + 32, 0.5)
            paste_resized(torch.zeros(2, 1, 9, 9), BOXES, (height + 32, width + 32))
        compiled.append([variants(module) for module in KERNELS])
    assert compiled[1] == compiled[-1]
    assert [later - first for first, later in zip(*compiled[:2], strict=True)] == [0, 1, 1]
