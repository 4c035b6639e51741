"""What comes after a selection, whose size depends on data, runs in engines and equals eager."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import Dim

import fxtrt
from fxtrt.capture.export import capture_module
from fxtrt.conversion.convert import input_specs
from fxtrt.engines.reference import ReferenceBackend
from fxtrt.graph.flops import flops
from fxtrt.partition.support import support
from fxtrt.pass_manager import run_passes
from fxtrt.runtime.engine_module import EngineModule

pytestmark = pytest.mark.usefixtures("no_grad")

MOST = 12


class Head(nn.Module):
    """A network on regions: convolution, reshape, linear layers, a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.hidden = nn.Linear(4 * 25, 8)
        self.scores = nn.Linear(8, 5)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(self.conv(regions).relu().flatten(1)).relu()
        scores = self.scores(hidden).softmax(-1)
        return scores[:, 1:].reshape(-1), scores.sum(1) / 2


class Selection(nn.Module):
    """Picks the regions that score above 0.5, at most `most`, for a head."""

    def __init__(self, most: int | None = MOST) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.most = most
        self.head = Head()

    def forward(self, regions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.nonzero(scores > 0.5).squeeze(1)[: self.most]
        return self.head(regions[kept])  # type: ignore[no-any-return]  # a module's call


class Suppression(Selection):
    """Picks them through non-maximum suppression."""

    def forward(self, regions: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
        corners = regions[:, :2, 0, 0] * 10
        boxes = torch.cat([corners, corners + scores[:, None]], dim=1)
        kept = torchvision.ops.nms(boxes, scores, 0.5)[: self.most]
        return self.head(regions[kept])  # type: ignore[no-any-return]  # a module's call


class Bounded(ReferenceBackend):
    """An engine that needs to know the largest size, as TensorRT does."""

    bounded = True


def example(count: int, selected: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(selected)
    scores = torch.rand(count, generator=generator) / 2
    scores[torch.randperm(count, generator=generator)[:selected]] += 0.5
    return torch.rand(count, 3, 5, 5, generator=generator), scores


def engines(compiled: nn.Module) -> list[EngineModule]:
    graph = compiled.forward.graph  # type: ignore[attr-defined]  # a GuardedForward
    return [module for module in graph.modules() if isinstance(module, EngineModule)]


@pytest.mark.parametrize("model", [Selection(), Suppression(), Selection(most=None)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_equals_eager_for_every_count(model: Selection, dynamic: bool) -> None:
    model = model.eval()
    count = Dim("count", min=2, max=40)
    shapes = ({0: count}, {0: count}) if dynamic else None
    compiled = fxtrt.compile(
        model, example(20, 7), engine="reference", dynamic_shapes=shapes, min_cluster_size=1
    )
    coverage = fxtrt.report(compiled)
    (head,) = (row for row in coverage.clusters if row.modules == "head")
    assert head.flops
    assert coverage.flops_share == 1.0
    for selected in (7, 0, 1, 2, 20, 0):
        for total in (20, 33) if dynamic else (20,):
            inputs = example(total, selected)
            torch.testing.assert_close(compiled(*inputs), model(*inputs))
    reasons = {reason for engine in engines(compiled) for reason in engine.fallbacks}
    assert all(reason.endswith("is empty") for reason in reasons)


def test_a_plan_has_a_profile_from_one_to_the_bound() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("TensorRT-RTX would build for this GPU, which it may not support")
    compiled = fxtrt.compile(
        Suppression().eval(),
        example(20, 7),
        engine="tensorrt_rtx",
        compute_capabilities=("sm80", "sm89", "sm120"),
        on_build_failure="raise",
        cache_dir=None,
    )
    (engine,) = (
        e for e in engines(compiled) if "head_conv_bias" in dict(e.fallback.named_buffers())
    )
    (picked,) = (spec for spec in input_specs(engine.fallback) if not spec.is_static)
    # It takes what is kept of the 20 boxes, and the first of those itself.
    assert (picked.low, picked.optimum, picked.high) == ((1,), (20,), (20,))


def test_without_a_bound_it_needs_an_engine_that_takes_any_size() -> None:
    model = Suppression(most=None).eval()
    gm = capture_module(model, example(20, 7))
    run_passes(gm)
    (linear, *_) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert support(linear, ReferenceBackend()) is None
    rejection = support(linear, Bounded())
    assert rejection is not None
    assert rejection.code == "unbounded"
    assert "slice" in rejection.detail
    assert flops(linear) == 0


class Count(nn.Module):
    """Makes a tensor as long as a count."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(torch.nonzero(x).shape[0])


class Joined(nn.Module):
    """Joins a selection with what is always there."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[torch.nonzero(x).squeeze(1)], x])


@pytest.mark.parametrize(
    ("model", "target", "reason"),
    [
        (Count(), torch.ops.aten.ones.default, "no input has the size u0"),
        (
            Joined(),
            torch.ops.aten.cat.default,
            "where u0 is 0, the result is not",
        ),
    ],
)
def test_a_node_stays_out(model: nn.Module, target: OpOverload, reason: str) -> None:
    gm = capture_module(model.eval(), (torch.ones(5),))
    run_passes(gm)
    (node,) = gm.graph.find_nodes(op="call_function", target=target)
    rejection = support(node, ReferenceBackend())
    assert rejection is not None
    assert rejection.code == "shape"
    assert reason in rejection.detail
