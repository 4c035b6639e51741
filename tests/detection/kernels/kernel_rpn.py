"""The kernels of `fxtrt::rpn_proposals` give what its CPU implementation gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_device import DEVICE
from rpn_maps import KINDS, Limits, Maps, maps_of
from torch import Tensor

from fxtrt.detection.kernels import rpn
from fxtrt.detection.ops import rpn_proposals as operator

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
"""numpy warns of 0 / 0, the IoU of two boxes without an area."""
CELLS = [
    torch.tensor([[-2.0, -1, 2, 1], [-1.5, -1.5, 1.5, 1.5], [-1, -2, 1, 2]]) * side
    for side in (8, 16, 32)
]


@pytest.fixture(autouse=True)
def by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU implementation take equal logits by rising index, as the kernels do."""

    def highest(scores: Tensor, count: int, library: str) -> tuple[Tensor, Tensor]:
        ordered, order = scores.sort(dim=1, descending=True, stable=True)
        return ordered[:, :count], order[:, :count]

    monkeypatch.setattr(operator, "_highest", highest)


def assert_same(maps: Maps, limits: Limits, offset: float, library: str) -> Tensor:
    """Compare; `exp` and `sigmoid` may differ in their last bits. Return the counts."""
    cells = CELLS[: len(maps.logits)]
    arguments = (*maps.arguments(cells, offset), *limits.arguments(), library)
    expected = operator.rpn_proposals(*arguments)
    assert rpn.takes(*arguments)
    boxes, scores, counts = (x.cpu() for x in rpn.proposals(*map(on_device, arguments)))
    assert torch.equal(counts, expected[2])
    torch.testing.assert_close(boxes, expected[0], rtol=1e-6, atol=4e-5)
    torch.testing.assert_close(scores, expected[1], rtol=1e-6, atol=1e-7)
    return counts


def on_device(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.to(DEVICE)
    if isinstance(argument, list):
        return [on_device(one) for one in argument]
    return argument


GRIDS = ((8, 10), (4, 5), (2, 2))
FEW = Limits(pre_nms_topk=24, post_nms_topk=40, min_size=1e-3, score_thresh=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_detectron2(kind: str) -> None:
    counts = assert_same(maps_of(1, kind, grids=GRIDS), FEW, 0.0, "detectron2")
    assert counts.sum() > 10 or kind == "none"


@pytest.mark.parametrize("kind", KINDS)
def test_torchvision(kind: str) -> None:
    maps = maps_of(2, kind, grids=GRIDS, dtype=torch.float16).channels_last()
    counts = assert_same(maps, FEW, 0.0, "torchvision")
    assert counts.sum() > 10 or kind == "none"


@pytest.mark.parametrize("offset", [0.5, 0.3])
def test_anchors_begin_at_the_offset(offset: float) -> None:
    assert_same(maps_of(3, images=1, grids=GRIDS), FEW, offset, "detectron2")


@pytest.mark.parametrize(
    "limits",
    [
        Limits(pre_nms_topk=1, post_nms_topk=1),
        Limits(pre_nms_topk=2000, post_nms_topk=400, nms_thresh=1.0),
        Limits(pre_nms_topk=30, post_nms_topk=20, min_size=15.0),
        Limits(post_nms_topk=0),
    ],
    ids=str,
)
def test_limits(limits: Limits) -> None:
    maps = maps_of(4, images=1, grids=((6, 8), (3, 4)))
    assert_same(maps, limits, 0.0, "detectron2")


def test_one_level() -> None:
    assert_same(maps_of(5, images=1, grids=((6, 8),)), FEW, 0.5, "detectron2")


def test_no_image() -> None:
    assert_same(maps_of(6, images=0), Limits(), 0.5, "detectron2")


def test_what_is_left_to_pytorch() -> None:
    maps, limits = maps_of(7), Limits().arguments()
    assert rpn.takes(*maps.arguments(CELLS, 0.0), *limits, "detectron2")
    for logits in ([maps.logits[0][:, :2], *maps.logits[1:]], [m.double() for m in maps.logits]):
        other = replace(maps, logits=logits)
        assert not rpn.takes(*other.arguments(CELLS, 0.0), *limits, "detectron2")
    many = replace(maps, logits=[torch.zeros(1, 3, 60, 60)])
    for most, few in ((8192, True), (8193, False)):
        limits = Limits(pre_nms_topk=most).arguments()
        assert rpn.takes(*many.arguments(CELLS, 0.0), *limits, "detectron2") is few
