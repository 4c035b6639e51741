"""An operator with an opt-in converter stays in PyTorch unless the whitelist names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

import fxtrt
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.engines.tensorrt import TensorRTBackend

torchvision = pytest.importorskip("torchvision")


class Pooled(torch.nn.Module):
    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        pooled: Tensor = torchvision.ops.roi_align(x.relu(), regions, 7, 0.5, 2, True)
        return pooled * 2


@pytest.mark.parametrize(
    ("whitelist", "reasons"),
    [((), ["converts only if `whitelist` names it"]), (("torchvision.roi_align",), [])],
    ids=["default", "whitelisted"],
)
def test_the_whitelist_decides(whitelist: tuple[str, ...], reasons: list[str]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, 16, generator=generator)
    images = torch.tensor([[0.0], [1.0], [1.0]])
    regions = torch.cat([images, torch.rand(3, 4, generator=generator) * 30], 1)
    model = Pooled().eval()
    fast = fxtrt.compile(
        model, (x, regions), engine="reference", min_cluster_size=1, whitelist=whitelist
    )
    torch.testing.assert_close(fast(x, regions), model(x, regions))
    rejections = fxtrt.report(fast).rejections
    assert len(rejections) == len(reasons)
    assert all(reason in row.detail for reason, row in zip(reasons, rejections, strict=True))


def regions_of(count: int, images: int = 2) -> Tensor:
    """Regions of 128x128 pixels' images, some beyond an edge, the first without extent."""
    generator = torch.Generator().manual_seed(count)
    image = torch.randint(0, images, (count, 1), generator=generator).float()
    corners = torch.rand(count, 2, generator=generator) * 130 - 10
    sizes = torch.rand(count, 2, generator=generator) * 100
    sizes[:1] = 0
    return torch.cat([image, corners, corners + sizes], 1)


class Adaptive(torch.nn.Module):
    """As Detectron2 calls it, on one level."""

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        pooled: Tensor = torchvision.ops.roi_align(x.relu(), regions, 7, 0.25, 0, True)
        return pooled * 2


def test_any_number_of_regions_takes_the_plugin_and_none_the_bypass() -> None:
    x = torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    model = Adaptive().eval()
    fast = fxtrt.compile(
        model,
        (x, regions_of(9)),
        engine="reference",
        whitelist=("torchvision.roi_align",),
        dynamic_shapes=({}, {0: Dim("regions", min=0, max=50)}),
    )
    report = fxtrt.report(fast)
    assert [row.ops for row in report.clusters if "torchvision.roi_align.default" in dict(row.ops)]
    assert report.rejections == ()
    for count in (9, 1, 30, 0):
        regions = regions_of(count)
        torch.testing.assert_close(fast(x, regions), model(x, regions))


def test_an_engine_without_plugins_leaves_adaptive_sampling(rtx: TensorRTBackend) -> None:
    report = fxtrt.report(
        Adaptive().eval(),
        (torch.randn(2, 4, 32, 32), regions_of(9)),
        engine="tensorrt_rtx",
        whitelist=("torchvision.roi_align",),
    )
    (row,) = (row for row in report.rejections if row.target == "torchvision.roi_align.default")
    assert row.code == "check"
    assert "takes no plugins" in row.detail
    assert "A positive sampling_ratio needs none" in row.detail


class Levels(torch.nn.Module):
    """The pooler of a detector: each region from the level of its size."""

    def forward(self, fine: Tensor, coarse: Tensor, regions: Tensor) -> Tensor:
        large = (regions[:, 3] - regions[:, 1]) > 50
        result = fine.new_zeros(regions.shape[0], fine.shape[1], 7, 7)
        for level, scale, taken in ((fine, 0.25, ~large), (coarse, 0.125, large)):
            indices = taken.nonzero()[:, 0]
            pooled = torchvision.ops.roi_align(level.relu(), regions[indices], 7, scale, 0, True)
            result[indices] = pooled * 2
        return result


def test_the_levels_of_a_pooler_are_in_engines() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 4, size, size, generator=generator) for size in (32, 16)]
    inputs = (*levels, regions_of(20))
    model = Levels().eval()
    fast = fxtrt.compile(
        model,
        inputs,
        engine="reference",
        min_cluster_size=1,
        whitelist=("torchvision.roi_align",),
    )
    counts = [
        dict(row.ops).get("torchvision.roi_align.default", 0) for row in fxtrt.report(fast).clusters
    ]
    assert sum(counts) == 2
    torch.testing.assert_close(fast(*inputs), model(*inputs))


class Suppressed(torch.nn.Module):
    """Work before a selection, after it, and on what it selects, at most `most`."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most

    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        kept = torchvision.ops.nms(boxes * 2, scores.sigmoid(), 0.5)[: self.most]
        return kept, (boxes[kept] + 1).relu() * scores[kept].unsqueeze(1)


def boxes_and_scores(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + torch.rand(count, 2, generator=generator) * 10], 1)
    return boxes, torch.randn(count, generator=generator)


class Bounded(ReferenceBackend):
    """An engine that needs to know the largest size, as TensorRT does."""

    bounded = True


@pytest.mark.parametrize("most", [None, 4])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("backend", [ReferenceBackend, Bounded])
def test_what_comes_before_and_after_nms_is_one_cluster(
    most: int | None,
    dynamic: bool,
    backend: type[ReferenceBackend],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fxtrt.engines.target.select", lambda engine: backend())
    count = Dim("count", min=2, max=40)
    model = Suppressed(most).eval()
    fast = fxtrt.compile(
        model,
        boxes_and_scores(20, 0),
        engine="reference",
        whitelist=("torchvision.nms",),
        dynamic_shapes=({0: count}, {0: count}) if dynamic else None,
    )
    report = fxtrt.report(fast)
    assert len(report.clusters) == 1
    assert report.rejections == ()
    for size in (20, 2, 33) if dynamic else (20,):
        for seed in range(3):
            inputs = boxes_and_scores(size, seed)
            torch.testing.assert_close(fast(*inputs), model(*inputs))


def test_an_engine_without_kernels_for_selections_leaves_them(rtx: TensorRTBackend) -> None:
    report = fxtrt.report(
        Suppressed().eval(),
        boxes_and_scores(20, 0),
        engine="tensorrt_rtx",
        whitelist=("torchvision.nms",),
    )
    (row,) = (row for row in report.rejections if row.target == "torchvision.nms.default")
    assert row.code == "check"
    assert "tensorrt_rtx has no kernel whose result's size depends on data" in row.detail


class Degrees(torch.nn.Module):
    """`deg2rad` has no converter; its only part is a product, which has one."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten.deg2rad.default(x)  # type: ignore[no-any-return]  # an operator's call


@pytest.mark.parametrize(
    ("options", "clusters", "codes"),
    [
        ({}, [], ["too_small"]),
        ({"whitelist": ("aten.deg2rad",)}, ["aten.mul.Tensor of aten.deg2rad.default"], []),
        ({"whitelist": ("deg2rad",)}, ["aten.mul.Tensor of aten.deg2rad.default"], []),
        ({"blacklist": ("aten.deg2rad.default",), "min_cluster_size": 1}, [], ["blacklist"]),
    ],
    ids=["default", "operator", "node", "blacklist"],
)
def test_an_operator_that_was_taken_apart_goes_by_its_own_name(
    options: dict[str, Any], clusters: list[str], codes: list[str]
) -> None:
    x = torch.arange(6.0)
    fast = fxtrt.compile(Degrees().eval(), (x,), engine="reference", **options)
    torch.testing.assert_close(fast(x), Degrees()(x))
    report = fxtrt.report(fast)
    assert [name for row in report.clusters for name, _ in row.ops] == clusters
    assert [row.code for row in report.rejections] == codes
