"""Sizes that no tensor of a cluster has, or that floats compute, reach its engine all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.conversion.size_carriers import engine_inputs
from fxtrt.runtime.engine_module import EngineModule

SIZES = ((40, 60), (60, 40), (33, 77), (90, 91))


class Clipped(nn.Module):
    """What is clipped comes from an operator without a converter, and does not know the sides."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        means = torch.special.bessel_j0(image).mean((1, 2)) * 90
        result: Tensor = (means * 2 + height).clamp(max=width).relu() / (height * width)
        return result


class Resized(nn.Module):
    """The new size is computed as torchvision's detectors compute it."""

    def forward(self, image: Tensor) -> Tensor:
        sides = image.shape[1:]
        scale = torch.sym_min(64 / torch.sym_min(*sides), 80 / torch.sym_max(*sides))
        size = [torch.sym_int(torch.sym_float(side) * scale) for side in sides]
        resized = F.interpolate(image[None].relu(), size=size, mode="bilinear")
        return F.pad(resized, (0, (size[1] + 31) // 32 * 32 - size[1])) * 2 + 1


@pytest.mark.parametrize("kind", [Clipped, Resized])
def test_all_sizes_run_in_one_engine(kind: Callable[[], nn.Module]) -> None:
    model = kind().eval()
    dynamic = ({1: Dim("height", min=16, max=128), 2: Dim("width", min=16, max=128)},)
    example = (torch.rand(3, 48, 56),)
    compiled: Any = fxtrt.compile(model, example, engine="reference", dynamic_shapes=dynamic)
    (engine,) = (m for m in compiled.forward.graph.modules() if isinstance(m, EngineModule))
    for size in SIZES:
        image = torch.rand(3, *size)
        torch.testing.assert_close(compiled(image), model(image))
    assert compiled.forward.fallbacks == engine.fallbacks == {}


def test_a_number_below_one_runs_in_pytorch() -> None:
    class Cropped(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            rows = torch.special.bessel_j0(image).sum(1)
            result: Tensor = (rows * 2).relu() + (image.shape[0] - 20)
            return result

    dynamic = ({0: Dim("height", min=16, max=128)},)
    model = Cropped().eval()
    compiled = fxtrt.compile(
        model, (torch.rand(48, 3),), engine="reference", dynamic_shapes=dynamic
    )
    for height in (16, 20, 48):
        image = torch.rand(height, 3)
        torch.testing.assert_close(compiled(image), model(image))


def test_what_layers_can_compute_is_not_carried() -> None:
    gm = trace(lambda x: x.new_ones((x.shape[0] + 31) // 32) + 1, (torch.ones(7, 8),), dynamic=True)
    assert [node.meta["val"].dim() for node in engine_inputs(gm)] == [2]


def test_a_size_that_a_carried_one_determines_is_read_off_it() -> None:
    class Padded(nn.Module):
        """Anchors of an image that is padded: what enters their cluster are sizes alone."""

        def forward(self, image: Tensor) -> Tensor:
            height = (image.shape[1] + 31) // 32 * 32
            rows = torch.special.bessel_j0(image.sum((1, 2)))
            steps = torch.arange(0.0, height, 8)
            result: Tensor = (steps[:, None] * 2 + rows).relu() * 3
            return result

    dynamic = ({1: Dim("height", min=16, max=256), 2: Dim.STATIC},)
    model = Padded().eval()
    compiled: Any = fxtrt.compile(
        model, (torch.rand(3, 48, 56),), engine="reference", dynamic_shapes=dynamic
    )
    for height in (16, 33, 64, 200):
        image = torch.rand(3, height, 56)
        torch.testing.assert_close(compiled(image), model(image))
    engines = [m for m in compiled.forward.graph.modules() if isinstance(m, EngineModule)]
    assert len(engines) == 1
    assert compiled.forward.fallbacks == engines[0].fallbacks == {}


class Fitted(nn.Module):
    """Sizes that floats make of the height, of which the example's may be 0 or less."""

    def forward(self, image: Tensor) -> Tensor:
        height = image.shape[2]
        third = F.interpolate(image * 2, scale_factor=0.3, recompute_scale_factor=True)
        top = image[:, :, : int(0.3 * height)].relu() + 1
        bottom = image[:, :, int(-0.3 * height) :] * 3
        below = F.pad(third + 1, (0, 0, 0, int(0.1 * height)))
        result: Tensor = below.sum() + top.mean() + bottom.amax((2, 3))
        return result


def test_sizes_rounded_from_floats_take_no_cluster_out() -> None:
    torch._dynamo.reset()
    model = Fitted().eval()
    fast: Any = torch.compile(model, backend="fxtrt", dynamic=True, options={"engine": "reference"})
    with torch.no_grad():
        for size in (*SIZES, (4, 20)):
            image = torch.rand(1, 3, *size)
            torch.testing.assert_close(fast(image), model(image))
    report = fxtrt.report(fast)
    assert report.rejections == ()
    assert report.converted == report.nodes > 10
