"""Images of new sizes cause no more engines than their dynamic sizes allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule

import fxtrt
from fxtrt.builder.build import build

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

SIZES = ((96, 128), (128, 96), (128, 160), (160, 192), (192, 160))
"""The first is no square: Dynamo takes two sizes that are equal at first for one. Each convolution
keeps to one side of the 20,480 elements beyond which torch on a CPU has another, behind a guard."""


class Detector(nn.Module):
    """A backbone, two heads, and NMS, whose result's size depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(c, 8, 3, stride=2, padding=1) for c in (3, 8, 8)]
        layers = [layer for conv in convolutions for layer in (conv, nn.ReLU())]
        self.backbone = nn.Sequential(*layers)
        self.scores, self.corners = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.backbone(image)
        scores = self.scores(features).flatten().sigmoid()
        corners = self.corners(features).flatten(2)[0].t().exp()
        boxes = torch.cat([-corners[:, :2], corners[:, 2:]], dim=1)
        kept = torchvision.ops.nms(boxes, scores, 0.5)
        return boxes[kept] * 8, scores[kept]


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The code of each cluster that was built."""
    clusters: list[str] = []

    def counted(modules: Sequence[tuple[GraphModule, fxtrt.Settings]], *args: Any) -> Any:
        clusters.extend(module.code for module, _ in modules)
        return build(modules, *args)

    monkeypatch.setattr("fxtrt.lowering.settle.build", counted)
    torch._dynamo.reset()
    with torch.no_grad():
        yield clusters
    torch._dynamo.reset()


def run_all(model: Any, eager: nn.Module, built: list[str]) -> list[int]:
    """The engines that were built after each image, each of which gave eager's result."""
    counts = []
    for height, width in SIZES:
        image = torch.rand(1, 3, height, width)
        torch.testing.assert_close(model(image), eager(image), rtol=1e-4, atol=1e-4)
        counts.append(len(built))
    return counts


@pytest.mark.parametrize(
    ("dynamic", "sets"),
    [
        pytest.param(True, 1, id="dynamic from the start"),
        # One for the first image, and one for each dimension when it first changes.
        pytest.param(None, 3, id="dynamic once a size has changed"),
    ],
)
def test_torch_compile_builds_one_set_of_engines_per_new_dimension(
    dynamic: bool | None, sets: int, built: list[str]
) -> None:
    eager = Detector().eval()
    model = torch.compile(eager, backend="fxtrt", dynamic=dynamic, options={"engine": "reference"})
    counts = run_all(model, eager, built)
    assert counts[0] > 0
    assert counts[-1] <= sets * counts[0]


def test_compile_with_dynamic_height_and_width(built: list[str]) -> None:
    eager = Detector().eval()
    height, width = (Dim(name, min=1, max=8) for name in ("height", "width"))
    shapes = ({2: 32 * height, 3: 32 * width},)
    example = (torch.rand(1, 3, 96, 128),)
    model = fxtrt.compile(eager, example, dynamic_shapes=shapes, engine="reference")
    engines = len(built)
    assert engines > 0
    assert run_all(model, eager, built) == [engines] * len(SIZES)
    assert model.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


@pytest.mark.parametrize("growth", [None, 2])
def test_tensorrt_gets_the_bounds_that_it_needs(growth: int | None, built: list[str]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("TensorRT-RTX would build for this GPU, which it may not support")
    eager = Detector().eval()
    options: dict[str, Any] = {
        "engine": "tensorrt_rtx",
        "compute_capabilities": ("sm86",),
        "cache_dir": None,
        "max_growth": growth,
    }
    model: Any = torch.compile(eager, backend="fxtrt", dynamic=True, options=options)
    counts = run_all(model, eager, built)
    if growth is None:
        assert counts == [0] * len(SIZES)
        assert "unbounded" in {row.code for row in fxtrt.report(model).rejections}
        assert "max_growth" in str(fxtrt.report(model))
    else:
        # Twice the first image's sizes hold the second image's; the last is larger.
        assert counts[1] == counts[0] > 0
        assert counts[0] < counts[-1] <= 2 * counts[0]
