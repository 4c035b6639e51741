"""`fxtrt::multilevel_roi_align` gives what the poolers of Detectron2 and torchvision give."""

from __future__ import annotations

import pytest
import torch
from detectron2_package import require_detectron2
from hypothesis import given, settings
from hypothesis import strategies as st
from region_boxes import HEIGHT, WIDTH, boxes
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.ops import MultiScaleRoIAlign

from fxtrt.detection.ops.multilevel_roi_align import multilevel_roi_align


def pyramid(levels: int, images: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(levels)
    shapes = [(images, 3, max(1, 24 >> i), max(1, 32 >> i)) for i in range(levels)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def scales(levels: int) -> list[float]:
    return [0.5 / 2**i for i in range(levels)]


def padded(per_image: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad with numbers that the operator must not read."""
    counts = torch.tensor([len(boxes) for boxes in per_image], dtype=torch.int32)
    result = torch.full((len(per_image), int(counts.max()) + 1, 4), torch.nan)
    for boxes_, row in zip(per_image, result, strict=True):
        row[: len(boxes_)] = boxes_
    return result, counts


def require_real_rows(actual: Tensor, expected: Tensor, rows: int, counts: Tensor) -> None:
    """Compare the rows of real boxes, and require zeros in the others."""
    real = (torch.arange(rows) < counts[:, None]).flatten()
    assert torch.equal(actual[real], expected)
    assert not actual[~real].any()


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("levels", [2, 4, 6])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_equals_detectron2s_pooler(pooler_type: str, levels: int, sampling_ratio: int) -> None:
    require_detectron2()
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    features = pyramid(levels)
    pooler = ROIPooler((3, 3), scales(levels), sampling_ratio, pooler_type, 28, 2)

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(boxes(), boxes())
    def equal(first: Tensor, second: Tensor) -> None:
        expected = pooler(features, [Boxes(first), Boxes(second)])
        batch, counts = padded([first, second])
        actual = multilevel_roi_align(
            features, batch, counts, scales(levels), [3, 3], sampling_ratio,
            pooler_type == "ROIAlignV2", 28, 2, "detectron2",
        )  # fmt: skip
        require_real_rows(actual, expected, batch.shape[1], counts)

    equal()


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
def test_a_single_level_takes_all_boxes_as_in_detectron2s_pooler() -> None:
    require_detectron2()
    from detectron2.modeling.poolers import ROIPooler
    from detectron2.structures import Boxes

    features = pyramid(1)
    pooler = ROIPooler((2, 2), [0.5], 0, "ROIAlignV2")
    regions = [torch.tensor([[0.0, 0, 9, 9], [3, 3, 60, 40]]), torch.tensor([[5.0, 5, 5, 5]])]
    expected = pooler(features, [Boxes(region) for region in regions])
    batch, counts = padded(regions)
    arguments = (features, batch, counts, [0.5], [2, 2], 0, True, 224, 4, "detectron2")
    require_real_rows(multilevel_roi_align(*arguments), expected, batch.shape[1], counts)


@given(boxes(), boxes(), st.sampled_from([(1, 0), (2, 2), (4, 2), (4, -1)]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_equals_torchvisions_pooler(first: Tensor, second: Tensor, case: tuple[int, int]) -> None:
    levels, sampling_ratio = case
    features = pyramid(levels)
    names = [str(level) for level in range(levels)]
    pooler = MultiScaleRoIAlign(
        names, (3, 2), sampling_ratio, canonical_scale=28, canonical_level=2
    )
    sizes = [(HEIGHT, WIDTH)] * 2
    expected = pooler(dict(zip(names, features, strict=True)), [first, second], sizes)
    batch, counts = padded([first, second])
    actual = multilevel_roi_align(
        features, batch, counts, scales(levels), [3, 2], sampling_ratio, False, 28, 2, "torchvision"
    )
    require_real_rows(actual, expected, batch.shape[1], counts)


@pytest.mark.parametrize("side", [27.999998, 28.0, 28.000002, 14.0, 56.0])
@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
def test_a_box_at_the_border_of_two_levels(side: float, library: str) -> None:
    """Each level is constant, so the pooled value tells the level; the libraries' rules differ."""
    features = [torch.full((1, 1, 40, 40), float(level)) for level in range(4)]
    counts = torch.tensor([1], dtype=torch.int32)
    box = torch.tensor([[[0.0, 0, side, side]]])
    ratio = torch.tensor(side) / 28
    if library == "detectron2":
        expected = torch.floor(2 + torch.log2(ratio + 1e-8))
    else:
        expected = torch.floor(2 + torch.log2(ratio) + torch.tensor(1e-6))
    arguments = (features, box, counts, scales(4), [1, 1], 2, False, 28, 2, library)
    assert multilevel_roi_align(*arguments).item() == expected.item() - 1


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_box_that_is_not_finite_gives_zeros(levels: int, value: float) -> None:
    box = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, value], [value, 0, 9, 9]]])
    counts = torch.tensor([3], dtype=torch.int32)
    arguments = (pyramid(levels, 1), box, counts, scales(levels), [2, 2], 0, True, 28, 2)
    pooled = multilevel_roi_align(*arguments, "detectron2")
    assert pooled[0].any()
    assert not pooled[1:].any()


def test_float16_features_are_pooled_in_float32() -> None:
    features = pyramid(3, dtype=torch.float16)
    batch, counts = padded([torch.tensor([[1.0, 2, 40.3, 30.7]]), torch.zeros(0, 4)])
    arguments = (batch, counts, scales(3), [3, 3], 0, True, 28, 2, "detectron2")
    pooled = multilevel_roi_align(features, *arguments)
    exact = multilevel_roi_align([feature.float() for feature in features], *arguments)
    assert pooled.dtype == torch.float16
    assert torch.equal(pooled, exact.half())


@pytest.mark.parametrize(("images", "counted", "levels"), [(1, 2, 2), (2, 1, 2), (2, 2, 3)])
def test_inputs_of_other_batches_are_refused(images: int, counted: int, levels: int) -> None:
    counts = torch.zeros(counted, dtype=torch.int32)
    arguments = (torch.zeros(2, 3, 4), counts, scales(levels), [2, 2], 0, True, 28, 2, "detectron2")
    with pytest.raises(ValueError, match=r"features of \[., .\] images with . scales do not go"):
        multilevel_roi_align(pyramid(2, images), *arguments)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rows", [0, 2])
def test_the_fake_agrees(channels_last: bool, rows: int) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    features = [feature.to(memory_format=memory_format) for feature in pyramid(2)]
    counts = torch.full((2,), rows, dtype=torch.int32)
    batch = torch.tensor([1.0, 2, 30, 40]).expand(2, rows, 4)
    arguments = (features, batch, counts, scales(2), [3, 3], 0, True, 28, 2, "detectron2")
    torch.library.opcheck(
        multilevel_roi_align, arguments, test_utils=("test_schema", "test_faketensor")
    )
