"""The kernels that read and write regions give what the operators give on the CPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_device import DEVICE
from region_boxes import boxes
from torch import Tensor
from torch.nn.functional import interpolate
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

from fxtrt.detection.kernels.keypoints import peaks
from fxtrt.detection.kernels.paste_masks import paste
from fxtrt.detection.kernels.paste_resized_masks import paste_resized
from fxtrt.detection.kernels.roi_align import pool
from fxtrt.detection.ops.keypoints_of_heatmaps import keypoints_of_heatmaps
from fxtrt.detection.ops.multilevel_roi_align import multilevel_roi_align
from fxtrt.detection.ops.paste_masks import paste_masks
from fxtrt.detection.ops.paste_masks_in_image import paste_masks_in_image

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
"""numpy warns of sums and quotients that are not finite, which a GPU computes silently."""

EXAMPLES = 3 if DEVICE == "cpu" else 200
"""The number of examples; Triton's interpreter takes about a second for each."""
HEIGHT, WIDTH = 40, 52
BOXES = torch.tensor(
    [
        [3.25, 2.5, 20.75, 17.0],
        [0, 0, 52, 40],
        [-9.5, -7, 61, 48.5],
        [30, 1, 31, 39.5],
        [5, 5, 5, 5],
        [9, 9, 9, 20],
        [2, 2, 30, 30],
        [12, 30, 8, 33],
        [12, 9, 8, 5],
        [60, 50, 70, 70],
        [torch.nan, 0, 9, 9],
        [0, 0, torch.inf, 9],
    ]
)
"""Boxes of all levels, empty, at the border of two levels, reversed, outside, and not finite."""


def random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("dtype", "channels_last", "levels", "size", "sampling_ratio", "aligned", "library"),
    [
        (torch.float32, False, 1, [2, 3], 0, True, "detectron2"),
        (torch.float32, False, 4, [3, 3], 0, True, "detectron2"),
        (torch.float32, True, 4, [3, 3], 0, False, "torchvision"),
        (torch.float32, True, 3, [7, 7], 2, True, "torchvision"),
        (torch.float16, True, 6, [2, 2], 2, False, "detectron2"),
        (torch.float16, False, 4, [9, 9], 0, True, "detectron2"),
    ],
)
def test_pool(
    dtype: torch.dtype,
    channels_last: bool,
    levels: int,
    size: list[int],
    sampling_ratio: int,
    aligned: bool,
    library: str,
) -> None:
    """The second image has five real boxes; the others are padding."""
    features = [random(2, 5, max(1, 20 >> i), max(1, 26 >> i)).to(dtype) for i in range(levels)]
    boxes = torch.stack([BOXES, BOXES.flip(0)])
    counts = torch.tensor([len(BOXES), 5], dtype=torch.int32)
    scales = [0.5 / 2**i for i in range(levels)]
    rule = (scales, size, sampling_ratio, aligned, 28, 2, library)
    expected = multilevel_roi_align(features, boxes, counts, *rule)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    moved = [feature.to(DEVICE, memory_format=memory_format) for feature in features]
    actual = pool(moved, boxes.to(DEVICE), counts.to(DEVICE), *rule)
    assert actual.is_contiguous()
    if DEVICE == "cpu" and dtype == torch.float32:
        assert torch.equal(actual, expected)
    assert_close(actual.cpu(), expected)
    assert not actual[len(BOXES) + 5 :].any()


@given(boxes(least=1), boxes(least=1), st.integers(1, 6), st.sampled_from([0, 2]), st.booleans())
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_pool_of_drawn_boxes(
    first: Tensor, second: Tensor, levels: int, sampling_ratio: int, aligned: bool
) -> None:
    features = [random(2, 3, max(1, 24 >> i), max(1, 32 >> i)) for i in range(levels)]
    batch = pad_sequence([first, second], batch_first=True)
    counts = torch.tensor([len(first), len(second)], dtype=torch.int32)
    library = "detectron2" if aligned else "torchvision"
    rule = ([0.5 / 2**i for i in range(levels)], [3, 3], sampling_ratio, aligned, 28, 2, library)
    expected = multilevel_roi_align(features, batch, counts, *rule)
    moved = [feature.to(DEVICE) for feature in features]
    assert_close(pool(moved, batch.to(DEVICE), counts.to(DEVICE), *rule).cpu(), expected)


@given(boxes(least=1))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_paste_of_drawn_boxes(boxes: Tensor) -> None:
    masks = random(len(boxes), 7, 7)
    expected = paste_masks(masks, boxes, HEIGHT, WIDTH, 0.5)
    actual = paste(masks.to(DEVICE), boxes.to(DEVICE), HEIGHT, WIDTH, 0.5)
    assert torch.equal(actual.cpu(), expected)


@pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter is too slow for it")
@given(boxes(least=1))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
def test_peaks_of_drawn_boxes(boxes: Tensor) -> None:
    """A GPU may take another one of the values that are equal but for rounding."""
    maps = random(len(boxes), 3, 8, 8)
    expected = keypoints_of_heatmaps(maps, boxes)
    actual = peaks(maps.to(DEVICE), boxes.to(DEVICE)).cpu()
    assert_close(actual[..., 2:], expected[..., 2:], rtol=1e-4, atol=1e-5)
    assert_close(values_at(maps, boxes, actual), expected[..., 2], rtol=1e-4, atol=1e-5)


def values_at(maps: Tensor, boxes: Tensor, keypoints: Tensor) -> Tensor:
    """Read the enlarged maps at the keypoints' places."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    corrections = (sides.ceil() / sides)[:, None]
    pixels = ((keypoints[..., :2] - boxes[:, None, :2]) * corrections - 0.5).round().long()
    values = []
    for one, (width, height), places in zip(maps, sides.ceil().int().tolist(), pixels, strict=True):
        enlarged = interpolate(one[None], (height, width), mode="bicubic", align_corners=False)[0]
        values.append(enlarged[torch.arange(len(one)), places[:, 1], places[:, 0]])
    return torch.stack(values)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_paste(dtype: torch.dtype, threshold: float) -> None:
    masks = random(len(BOXES), 7, 7).to(dtype)
    expected = paste_masks(masks, BOXES, HEIGHT, WIDTH, threshold)
    actual = paste(masks.to(DEVICE), BOXES.to(DEVICE), HEIGHT, WIDTH, threshold)
    assert torch.equal(actual.cpu(), expected)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_paste_resized(dtype: torch.dtype, padding: int) -> None:
    """torchvision's function fails for boxes outside of the image, where the kernel gives zeros."""
    masks = random(len(BOXES), 1, 7, 7).to(dtype)
    shape = (HEIGHT, WIDTH)
    expected = paste_masks_in_image(masks[:7], BOXES[:7], shape, padding)
    actual = paste_resized(masks.to(DEVICE), BOXES.to(DEVICE), shape, padding)
    # In float16 torchvision rounds between rows and columns too.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-3
    assert_close(actual[:7].cpu(), expected, rtol=0, atol=tolerance)
    assert not actual[9:].any()


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_peaks(spread: float) -> None:
    """The first one of equal values counts, as in a flat map."""
    maps = random(len(BOXES), 2, 6, 6) * spread
    expected = keypoints_of_heatmaps(maps, BOXES)
    actual = peaks(maps.to(DEVICE), BOXES.to(DEVICE))
    assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(DEVICE == "cpu", reason="only a GPU records graphs")
def test_a_cuda_graph_of_the_operators_follows_its_inputs() -> None:
    """Nothing is decided on the host while it is recorded: other boxes give their results."""
    features = [random(1, 8, 20 >> i, 26 >> i).to(DEVICE) for i in range(3)]
    maps, boxes = random(5, 2, 6, 6).to(DEVICE), (random(1, 5, 4) * 20).to(DEVICE)
    counts = torch.tensor([5], dtype=torch.int32, device=DEVICE)

    def operators() -> tuple[Tensor, ...]:
        scales, rule = [0.5, 0.25, 0.125], (0, True, 28, 2, "detectron2")
        return (
            multilevel_roi_align(features, boxes, counts, scales, [3, 3], *rule),
            paste_masks(maps[:, 0], boxes[0], 40, 52, 0.5),
            paste_masks_in_image(maps[:, :1], boxes[0], (40, 52), 1),
            keypoints_of_heatmaps(maps, boxes[0]),
        )

    operators()  # Triton compiles at the first call, which may not be recorded.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = operators()
    boxes.copy_(torch.tensor([3.0, 4, 30, 20]))
    counts.fill_(3)
    graph.replay()
    assert all(map(torch.equal, recorded, operators()))
    assert not recorded[0][3:].any()
