"""`fxtrt::rpn_proposals` gives what Detectron2 and torchvision give, to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from detectron2_package import require_detectron2
from rpn_maps import (
    KINDS,
    Found,
    Limits,
    Maps,
    detectron2_proposals,
    maps_of,
    torchvision_proposals,
)

from fxtrt.detection.ops.rpn_proposals import rpn_proposals

cases = given(
    maps=st.builds(
        maps_of,
        seed=st.integers(0, 10_000),
        kind=st.sampled_from(KINDS),
        images=st.integers(1, 3),
        grids=st.sampled_from([((12, 16), (6, 8), (3, 4)), ((6, 4),), ((2, 2), (1, 1))]),
        dtype=st.sampled_from([torch.float32, torch.float16]),
    ),
    limits=st.builds(
        Limits,
        nms_thresh=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
        pre_nms_topk=st.sampled_from([1, 7, 50, 2000]),
        post_nms_topk=st.sampled_from([1, 40, 400]),
        min_size=st.sampled_from([0.0, 1e-3, 12.0]),
        score_thresh=st.sampled_from([0.0, 0.3, 1.0]),
    ),
)
examples = settings(max_examples=120, deadline=None, derandomize=True)
of_detectron2 = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


def of_this_detectron2() -> str:
    """The library's name for whichever version is there."""
    require_detectron2()
    from fxtrt.detection.detectron2.proposals import IS_0_4

    return "detectron2_0.4" if IS_0_4 else "detectron2"


def assert_holds(actual: tuple[Tensor, Tensor, Tensor], expected: Found, most: int) -> None:
    """All rows are the expected ones and then zeros."""
    boxes, scores, counts = actual
    assert boxes.shape == (len(expected), most, 4)
    assert scores.shape == (len(expected), most)
    assert boxes.dtype == scores.dtype == torch.float32
    assert counts.dtype == torch.int32
    assert counts.tolist() == [len(one) for _, one in expected]
    for i, (its_boxes, its_scores) in enumerate(expected):
        torch.testing.assert_close(boxes[i, : len(its_boxes)], its_boxes, rtol=0, atol=0)
        torch.testing.assert_close(scores[i, : len(its_scores)], its_scores, rtol=0, atol=0)
        assert not boxes[i, len(its_boxes) :].any()
        assert not scores[i, len(its_scores) :].any()


def assert_equals_detectron2(maps: Maps, limits: Limits, offset: float, library: str) -> int:
    expected, cells = detectron2_proposals(maps, limits, offset)
    actual = rpn_proposals(*maps.arguments(cells, offset), *limits.arguments(), library)
    assert_holds(actual, expected, limits.post_nms_topk)
    return sum(len(one) for _, one in expected)


def assert_equals_torchvision(maps: Maps, limits: Limits) -> int:
    expected, cells = torchvision_proposals(maps, limits)
    actual = rpn_proposals(*maps.arguments(cells, 0.0), *limits.arguments(), "torchvision")
    assert_holds(actual, expected, limits.post_nms_topk)
    return sum(len(one) for _, one in expected)


class TestDetectron2:
    pytestmark = of_detectron2

    @cases
    @examples
    def test_any_maps(self, maps: Maps, limits: Limits) -> None:
        assert_equals_detectron2(maps, limits, 0.0, of_this_detectron2())

    @pytest.mark.parametrize("offset", [0.0, 0.5, 0.25])
    def test_anchors_begin_at_the_offset(self, offset: float) -> None:
        library = of_this_detectron2()
        assert assert_equals_detectron2(maps_of(1), Limits(), offset, library) == 80

    def test_5000_boxes_are_suppressed_level_by_level(self) -> None:
        """torchvision's `batched_nms` takes the boxes apart there and does not shift them."""
        maps = maps_of(2, images=1, grids=((40, 60), (20, 30)))
        limits = Limits(pre_nms_topk=3500, post_nms_topk=5000)
        library = of_this_detectron2()
        assert assert_equals_detectron2(maps, limits, 0.0, library) > 1000

    def test_without_ties_all_versions_agree(self) -> None:
        require_detectron2()
        for library in ("detectron2", "detectron2_0.4"):
            assert assert_equals_detectron2(maps_of(3), Limits(), 0.5, library) == 80


class TestTorchvision:
    @cases
    @examples
    def test_any_maps(self, maps: Maps, limits: Limits) -> None:
        assert_equals_torchvision(maps, limits)

    def test_5000_boxes_are_suppressed_level_by_level(self) -> None:
        maps = maps_of(2, images=1, grids=((40, 60), (20, 30)))
        limits = Limits(pre_nms_topk=3500, post_nms_topk=5000, min_size=1e-3)
        assert assert_equals_torchvision(maps, limits) > 1000


def test_vertical_and_horizontal_strides_may_differ() -> None:
    """torchvision divides the batch's height and width by a map's, and rounds down."""
    maps, limits = maps_of(6, grids=((9, 14), (5, 6))), Limits()
    expected, cells = torchvision_proposals(maps, limits)
    arguments = list(maps.arguments(cells, 0.0))
    arguments[4] = [8, 8, 72 // 5, 112 // 6]
    actual = rpn_proposals(*arguments, *limits.arguments(), "torchvision")
    assert_holds(actual, expected, limits.post_nms_topk)


@pytest.mark.parametrize("library", ["detectron2", "detectron2_0.4", "torchvision"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", [0, 2])
def test_the_memory_layout_changes_nothing(images: int, kind: str, library: str) -> None:
    maps, limits = maps_of(4, kind, images), Limits(min_size=1.0).arguments()
    cells = [torch.tensor([[-9.0, -9, 9, 9], [-20, -9, 20, 9], [-9, -20, 9, 20]])] * 3
    expected = rpn_proposals(*maps.arguments(cells, 0.5), *limits, library)
    actual = rpn_proposals(*maps.channels_last().arguments(cells, 0.5), *limits, library)
    assert all(map(torch.equal, actual, expected))
    assert expected[0].shape == (images, 40, 4)


@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
@pytest.mark.parametrize("images", [1, 2])
def test_the_fake_has_the_same_form(images: int, library: str) -> None:
    cells = [torch.tensor([[-9.0, -9, 9, 9], [-20, -9, 20, 9], [-9, -20, 9, 20]])] * 3
    arguments = (*maps_of(5, images=images).arguments(cells, 0.0), *Limits().arguments(), library)
    torch.library.opcheck(rpn_proposals, arguments, test_utils=("test_schema", "test_faketensor"))


class TorchvisionStrides(torch.nn.Module):
    """Passes the strides that torchvision computes, which are symbolic where sizes vary."""

    def forward(self, batch: Tensor, sizes: Tensor, logits: Tensor, deltas: Tensor) -> Tensor:
        strides = [batch.shape[2] // logits.shape[2], batch.shape[3] // logits.shape[3]]
        cells = [torch.ones(3, 4) * torch.tensor([-9.0, -9, 9, 9])]
        arguments = ([logits], [deltas], cells, sizes, strides, 0.0, [1.0] * 4)
        boxes: Tensor = rpn_proposals(*arguments, *Limits().arguments(), "torchvision")[0]
        return boxes


def test_strides_may_be_symbolic() -> None:
    def inputs(images: int, height: int, width: int) -> tuple[Tensor, ...]:
        maps = maps_of(8, images=images, grids=((height, width),))
        batch = torch.zeros(images, 3, 8 * height, 8 * width)
        return batch, torch.tensor(maps.sizes).float(), maps.logits[0], maps.deltas[0]

    batch, height, width = (torch.export.Dim(name, min=2, max=99) for name in "bhw")
    sizes = {0: batch, 2: height, 3: width}
    exported = torch.export.export(
        TorchvisionStrides(),
        inputs(3, 5, 7),
        dynamic_shapes=({0: batch, 2: 8 * height, 3: 8 * width}, {0: batch}, sizes, sizes),
    ).module()
    for arguments in (inputs(3, 5, 7), inputs(2, 9, 6)):
        assert torch.equal(exported(*arguments), TorchvisionStrides()(*arguments))
