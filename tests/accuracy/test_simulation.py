"""A simulated model answers as its engines do, and builds nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import int8_models
import pytest
import torch
from guilty_layers import chain, images
from small_torchvision import images as pictures
from small_torchvision import small_rcnn
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree
from torchvision.models.detection import FasterRCNN

import fxtrt
from fxtrt.accuracy.node_precision import rounds
from fxtrt.accuracy.simulation import Simulation, fresh
from fxtrt.capture.arguments import call_of
from fxtrt.capture.model_parts import Captured, capture_model
from fxtrt.engines.target import Target
from fxtrt.graph.patterns import Patterns, exact_pattern
from fxtrt.lowering.lower import normalize_model
from fxtrt.quantization.calibration import calibrate
from fxtrt.quantization.quantize import wants_int8

pytestmark = pytest.mark.usefixtures("no_grad")
X = images(1)[0]


class Torn(nn.Module):
    """Two clusters with an operator between them that PyTorch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 1))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.first(x)
        z = y.cumsum(3)
        return self.second(y).sigmoid() + 0.1, self.second(z.relu() + y * 0.3)


def pair(
    model: nn.Module, inputs: Any, demoted: Mapping[str, Sequence[str]], **options: Any
) -> tuple[Any, Any, Any]:
    """What the simulation, the engines and the model itself answer."""
    settings = fxtrt.Settings(engine="reference", cache_dir=None, **options)
    calibration = [inputs] if wants_int8(settings) else None
    captured = capture_model(model, call_of(model, inputs), None, settings)
    simulation = Simulation(
        fresh(captured), Target.of(settings), _scales(captured, settings, calibration)
    )
    simulation.demote(demoted)
    with simulation.in_place() as simulated:
        answer = simulated(*inputs)
    assert simulation.reasons == {}
    both: Any = {name: (*getattr(settings, name), *entries) for name, entries in demoted.items()}
    fast = fxtrt.compile(model, inputs, settings=settings, calibration=calibration, **both)
    return answer, fast(*inputs), model(*inputs)


def _scales(captured: Captured, settings: fxtrt.Settings, calibration: Any) -> Any:
    if calibration is None:
        return None
    normalized = fresh(captured)
    normalize_model(normalized, settings)
    return calibrate(normalized, calibration, settings)


def gap(actual: Any, expected: Any) -> float:
    """The largest mean error of an output, relative to its size."""
    pairs = zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True)
    return max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in pairs)


def assert_simulated(answer: Any, engines: Any, eager: Any, *, at_least: float = 1e-5) -> None:
    """The simulation is much nearer to the engines than the model itself is."""
    assert gap(engines, eager) > at_least
    assert gap(answer, engines) < 0.05 * gap(engines, eager)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_chain(precision: str) -> None:
    assert_simulated(*pair(chain(6, {2: 500.0}), X, {}, precision=precision))


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_calls_that_stay_float32(kept: int) -> None:
    model = chain(6, {2: 500.0, 4: 500.0})
    name = f"layers.{kept}.conv:convolution" + (f"_{kept}" if kept else "")
    assert_simulated(*pair(model, X, {"keep_fp32": (name,)}, precision="fp16"))


def test_patterns_of_the_user_keep_what_they_name() -> None:
    answer, engines, eager = pair(
        chain(4, {}), X, {}, precision="fp16", keep_fp32=("aten.convolution", "head")
    )
    assert gap(answer, engines) < 1e-6
    assert gap(engines, eager) < 1e-6


def test_a_part_with_a_precision_of_its_own() -> None:
    options = {"precision": "fp16", "components": {"layers.3": {"precision": "fp32"}}}
    model = chain(6, {3: 100.0})
    answer, engines, eager = pair(model, X, {}, **options)
    assert_simulated(answer, engines, eager)
    assert gap(engines, eager) < 0.01


def test_clusters_that_hand_each_other_float16() -> None:
    """Values enter the second cluster in float16, so what follows them there is narrow too."""
    torch.manual_seed(0)
    model = Torn().eval()
    options = {"precision": "fp16", "min_cluster_size": 1}
    for blacklist in ((), ("aten.tanh",), ("aten.relu", "aten.sigmoid")):
        assert_simulated(*pair(model, X, {}, blacklist=blacklist, **options))


@pytest.mark.parametrize("demoted", [{}, {"keep_fp16": ("second:convolution_2",)}])
def test_int8(demoted: Mapping[str, Sequence[str]]) -> None:
    model, inputs = int8_models.residual(), int8_models.data(1)[0]
    assert_simulated(*pair(model, inputs, demoted, precision="int8"), at_least=1e-3)


def test_a_detector() -> None:
    """Its features pass from the backbone through an operator in PyTorch to the head."""
    model = small_rcnn(FasterRCNN)
    answer, engines, eager = pair(model, (pictures(1),), {}, precision="fp16")
    assert len(answer[0]["boxes"]) == len(engines[0]["boxes"]) > 0
    for name in ("boxes", "scores"):
        assert gap(answer[0][name], engines[0][name]) < 1e-3
    assert gap(engines[0]["scores"], eager[0]["scores"]) > 1e-5


def test_nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a network was made")

    monkeypatch.setattr("fxtrt.builder.build.convert", never)
    model = chain(3, {})
    settings = fxtrt.Settings(engine="reference", precision="fp16")
    captured = capture_model(model, call_of(model, X), None, settings)
    simulation = Simulation(fresh(captured), Target.of(settings))
    with simulation.in_place() as simulated:
        simulated(*X)
    assert "forward" not in simulated.__dict__
    assert simulation.simulated_calls == 1


def test_only_what_rounds_can_be_demoted() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3))
    settings = fxtrt.Settings(engine="reference", precision="fp16")
    captured = capture_model(model.eval(), call_of(model, X), None, settings)
    simulation = Simulation(fresh(captured), Target.of(settings))
    units = simulation.units
    assert [unit.entry for unit in units["keep_fp32"]] == ["0:convolution", "3:convolution_1"]
    assert all(rounds(unit.node) for unit in units["keep_fp32"])
    assert units["keep_fp16"] == []


def test_an_exact_pattern_matches_its_node_only() -> None:
    gm: GraphModule = (
        capture_model(chain(3, {}), call_of(chain(3, {}), X), None, fxtrt.Settings()).parts[0].graph
    )
    calls = [node for node in gm.graph.nodes if node.op == "call_function"]
    for node in calls:
        one = Patterns((exact_pattern(node),))
        assert [other for other in calls if one.match(other)] == [node]
