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
    monkeypatch.setattr("fxtrt.ahead_of_time.select", lambda engine: backend())
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
