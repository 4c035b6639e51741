"""The ranges of dynamic sizes reach the engine; where there is none, it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule

import fxtrt
from fxtrt.capture.export import capture_dynamo, capture_module
from fxtrt.conversion.convert import convert, input_specs
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.tensorrt import _add_profiles
from fxtrt.graph.sizes import size_range
from fxtrt.graph.specs import TensorSpec
from fxtrt.passes.bound_selections import bound_selections
from fxtrt.settings import Settings


def model() -> nn.Module:
    # No convolution: torch's own choice of a kernel for it would bound the batch on a CPU.
    return nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh()).eval()


def exported(dynamic: dict[int, Any], *shape: int) -> GraphModule:
    return capture_module(model(), (torch.randn(shape),), dynamic_shapes=(dynamic,))


def spec_of_dynamo(x: torch.Tensor) -> TensorSpec:
    """Return the spec of the graph that Dynamo captures of a call with `x`."""
    found: list[TensorSpec] = []

    def compile_aten(gm: GraphModule) -> GraphModule:
        found.extend(input_specs(gm))
        return gm

    torch._dynamo.reset()
    compiled = torch.compile(
        model(), backend=lambda gm, args: capture_dynamo(gm, args, compile_aten)
    )
    with torch.no_grad():
        compiled(x)
    (spec,) = found
    return spec


def test_ranges_of_export() -> None:
    batch, height = Dim("batch", min=2, max=8), Dim("height", min=1, max=4)
    (spec,) = input_specs(exported({0: batch, 2: 32 * height}, 3, 3, 64, 48))
    assert spec.low == (2, 3, 32, 48)
    assert spec.optimum == (3, 3, 64, 48)
    assert spec.high == (8, 3, 128, 48)


def test_ranges_of_mark_dynamic() -> None:
    x = torch.randn(3, 3, 64, 48)
    torch._dynamo.mark_dynamic(x, 0, min=2, max=8)
    torch._dynamo.mark_dynamic(x, 3, min=16, max=96)
    spec = spec_of_dynamo(x)
    assert spec.low == (2, 3, 64, 16)
    assert spec.optimum == (3, 3, 64, 48)
    assert spec.high == (8, 3, 64, 96)


def test_no_range_is_no_range() -> None:
    x = torch.randn(3, 3, 64, 48)
    torch._dynamo.mark_dynamic(x, 0)
    assert spec_of_dynamo(x).high == (None, 3, 64, 48)
    (spec,) = input_specs(exported({0: Dim("batch", min=1)}, 3, 3, 64, 48))
    assert spec.high == (None, 3, 64, 48)


class Keywords(nn.Module):
    def forward(self, x: torch.Tensor, *, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x.relu() - y.sigmoid() + z.tanh()


@pytest.mark.parametrize("hint", [Dim.DYNAMIC, Dim.AUTO])
@pytest.mark.parametrize("form", ["by position", "by name", "as a list"])
def test_a_hint_has_its_minimum_of_one(hint: Any, form: str) -> None:
    """torch itself raises it to 2."""
    size = hint(min=1, max=4)
    spec: Any = [size, hint(min=2, max=8)] if form == "as a list" else {0: size}
    shapes = {"input": spec} if form == "by name" else (spec,)
    (of_x,) = input_specs(capture_module(model(), (torch.randn(3, 5),), dynamic_shapes=shapes))
    expected = ((1, 2), (4, 8)) if form == "as a list" else ((1, 5), (4, 5))
    assert (of_x.low, of_x.high) == expected


def test_hints_of_keyword_arguments_in_any_order() -> None:
    kwargs = {"z": torch.randn(3, 4), "y": torch.randn(3, 4)}
    shapes = {name: {0: Dim.AUTO(min=1, max=4)} for name in "xyz"}
    gm = capture_module(Keywords().eval(), (torch.randn(3, 4),), kwargs, shapes)
    assert [spec.low for spec in input_specs(gm)] == [(1, 4)] * 3


def test_a_hint_without_a_minimum_is_from_two_on() -> None:
    (spec,) = input_specs(exported({0: Dim.AUTO(max=4)}, 3, 5))
    assert (spec.low, spec.high) == ((2, 5), (4, 5))


def test_a_hint_does_not_hold_where_the_model_differs_at_one() -> None:
    class Squeezes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.squeeze(0).relu()

    gm = capture_module(
        Squeezes().eval(), (torch.randn(3, 5),), dynamic_shapes=({0: Dim.AUTO(min=1, max=4)},)
    )
    assert [spec.low for spec in input_specs(gm)] == [(2, 5)]


class Padded(nn.Module):
    """Indexes a mask by image: torch does not learn that there is a row for each."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting():  # As models of transformers do.
            mask = mask.expand(x.shape[0], -1)
        return x.relu() * mask[torch.arange(x.shape[0])]


def test_sizes_that_belong_together_are_one_together() -> None:
    shapes = {name: {0: Dim.DYNAMIC(min=1, max=4)} for name in ("x", "mask")}
    example = torch.randn(3, 5), torch.rand(3, 5)
    fast: Any = fxtrt.compile(
        Padded().eval(), example, dynamic_shapes=shapes, engine="reference", min_cluster_size=1
    )
    for count in (1, 2, 4):
        x, mask = torch.randn(count, 5), torch.rand(count, 5)
        torch.testing.assert_close(fast(x, mask), Padded()(x, mask))
    assert fast.forward.fallbacks == {}
    # The model broadcasts one mask; the graph need not.
    x, mask = torch.randn(3, 5), torch.rand(1, 5)
    torch.testing.assert_close(fast(x, mask), Padded()(x, mask))
    assert fast.forward.fallbacks == {
        "the graph was captured for other relations between the inputs' sizes": 1
    }


def test_conversion_asks_for_no_size(tmp_path: Path) -> None:
    """A question would add a guard that keeps calls out, of a loaded model too."""
    shapes = {name: {0: Dim.DYNAMIC(min=1, max=4)} for name in ("x", "mask")}
    example = torch.randn(3, 5), torch.rand(3, 5)
    fast = fxtrt.compile(
        Padded().eval(), example, dynamic_shapes=shapes, engine="reference", min_cluster_size=1
    )
    fxtrt.save(fast, tmp_path / "model.fxtrt")
    loaded: Any = fxtrt.load(tmp_path / "model.fxtrt", Padded().eval())
    x, mask = torch.randn(1, 5), torch.rand(1, 5)
    torch.testing.assert_close(loaded(x, mask), Padded()(x, mask))
    assert loaded.forward.fallbacks == {}


def test_sizes_are_not_one_together_where_the_model_differs_alone() -> None:
    class Counts(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.relu().sum(0) + y.squeeze(0).sum(0)

    shapes = {name: {0: Dim.DYNAMIC(min=1, max=4)} for name in ("x", "y")}
    model, example = Counts().eval(), (torch.randn(3, 5), torch.randn(3, 5))
    fast = fxtrt.compile(
        model, example, dynamic_shapes=shapes, engine="reference", min_cluster_size=1
    )
    for m, n in ((1, 1), (1, 3), (3, 1), (2, 4)):
        x, y = torch.randn(m, 5), torch.randn(n, 5)
        torch.testing.assert_close(fast(x, y), model(x, y))


@pytest.mark.parametrize("size", [Dim("batch", min=1, max=4), Dim.DYNAMIC(min=1, max=4)])
def test_a_batch_of_one_runs_in_the_graph(size: Any) -> None:
    x = torch.randn(3, 5)
    fast: Any = fxtrt.compile(model(), (x,), dynamic_shapes=({0: size},), engine="reference")
    with torch.no_grad():
        for count in (1, 2, 4):
            y = torch.randn(count, 5)
            torch.testing.assert_close(fast(y), y.relu().sigmoid().tanh())
    assert fast.forward.fallbacks == {}


def test_a_model_that_writes_a_buffer_keeps_size_one() -> None:
    class Counts(nn.Module):
        calls: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.calls.add_(1)
            return x.relu() + self.calls, self.calls

    counts = Counts().eval()
    shapes = ({0: Dim("batch", min=1, max=4)},)
    gm = capture_module(counts, (torch.randn(3, 5),), dynamic_shapes=shapes)
    assert [spec.low for spec in input_specs(gm)] == [(1, 5)]
    assert counts.calls == 0


class Recorder:
    """Stands in for the builder, its profiles and the builder's configuration."""

    def __init__(self) -> None:
        self.profiles: list[dict[str, tuple[Any, ...]]] = []

    def create_optimization_profile(self) -> Recorder:
        self.profiles.append({})
        return self

    def set_shape(self, name: str, *shapes: Any) -> None:
        self.profiles[-1][name] = shapes

    def add_optimization_profile(self, profile: Recorder) -> int:
        return len(self.profiles) - 1


ONE = {"x0": ((2, 3, 64, 48), (3, 3, 64, 48), (8, 3, 64, 48))}
FULL = {"x0": ((2, 3, 64, 48), (8, 3, 64, 48), (8, 3, 64, 48))}


@pytest.mark.parametrize(("most_images", "profiles"), [(1, [ONE]), (8, [ONE, FULL])])
def test_ranges_become_optimization_profiles(
    reference: EngineBackend, most_images: int, profiles: list[Any]
) -> None:
    gm = exported({0: Dim("batch", min=2, max=8)}, 3, 3, 64, 48)
    network = convert(gm, reference.features)
    network.builder = recorder = Recorder()
    _add_profiles(network, recorder, Settings(most_images=most_images))
    assert recorder.profiles == profiles


def test_a_batch_that_hardly_grows_has_one_profile(reference: EngineBackend) -> None:
    gm = exported({0: Dim("batch", min=2, max=5), 2: Dim("h", min=32, max=640)}, 3, 3, 64, 48)
    network = convert(gm, reference.features)
    network.builder = recorder = Recorder()
    _add_profiles(network, recorder, Settings(most_images=8))
    assert recorder.profiles == [{"x0": ((2, 3, 32, 48), (3, 3, 64, 48), (5, 3, 640, 48))}]


@pytest.mark.parametrize("way", ["torch.compile", "fxtrt.compile"])
def test_an_upper_bound_is_asked_for(way: str) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    net, x = model(), torch.randn(3, 3, 64, 48)
    options: dict[str, Any] = {"engine": "tensorrt_rtx", "cache_dir": None}
    torch._dynamo.reset()
    compiled: Any
    with torch.no_grad():
        if way == "torch.compile":
            compiled = torch.compile(net, backend="fxtrt", options=options)
            torch._dynamo.mark_dynamic(x, 0)
        else:
            unbounded = ({0: Dim("batch", min=1)},)
            compiled = fxtrt.compile(net, (x,), dynamic_shapes=unbounded, **options)
        torch.testing.assert_close(compiled(x), net(x))
    coverage = fxtrt.report(compiled)
    assert coverage.clusters == ()
    assert {row.code for row in coverage.rejections} == {"unbounded"}
    (detail,) = {row.detail for row in coverage.rejections}
    assert "has no upper bound" in detail
    assert "mark_dynamic" in detail
    assert "torch.export.Dim(..., max=...)" in detail


@pytest.mark.parametrize(
    ("bounds", "most"),
    [((0, 5), 5), ((None, 5), 5), ((2, 5), 3), ((7, 5), 0), ((0, -5), 9), ((-5, 5), 9)],
)
def test_a_slice_of_what_depends_on_data_is_bounded(
    bounds: tuple[int | None, int], most: int
) -> None:
    """torch 2.11 captures it so; later versions write the bound into the size."""

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nonzero(x)[bounds[0] : bounds[1]]

    gm = capture_module(Model().eval(), (torch.ones(9),))
    (node,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.slice.Tensor)
    mode = node.meta["val"].fake_mode
    with mode:
        size = mode.shape_env.create_unbacked_symint()
        torch._check(size <= 9)
        node.meta["val"] = torch.empty(size, 1, dtype=torch.int64)
    bound_selections(gm)
    assert size_range(node.meta["val"].shape[0]) == (0, most)
