"""An engine that lies is found, loses the node that it lies about, and the rest is built again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from failing_engine import FailingPlanner
from lying_engine import LyingPlanner
from settlements import X, left_with, network, options, settled_as_eager
from torch.fx import GraphModule

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.errors import EngineError
from fxtrt.lowering.settle import Settled, settle

aten = torch.ops.aten


def wrong(settled: Settled) -> dict[str, str]:
    return left_with("wrong", settled)


def about(*nodes: str) -> LyingPlanner:
    """An engine that lies about these nodes."""
    return LyingPlanner(lambda layer, kind: layer.rpartition(".")[0] in nodes)


@pytest.mark.parametrize("node", ["sin", "exp", "convolution_1", "relu_2", "add", "sigmoid"])
def test_the_node_that_is_wrong_leaves_and_the_rest_keeps_its_engine(node: str) -> None:
    settled = settled_as_eager(about(node), network())
    assert wrong(settled).keys() == {node}
    assert "the engine gives" in wrong(settled)[node]
    built = {n.name for one in settled.built for n in one.extracted.cluster.nodes}
    assert {"convolution", "convolution_2"} <= built | {node}
    assert all(one.check is not None and not one.check.unchecked for one in settled.built)


def test_the_two_values_are_named() -> None:
    def two(value: torch.Tensor) -> torch.Tensor:
        return torch.full_like(value, 2.0)

    backend = LyingPlanner(lambda layer, kind: layer == "sin.0", two)
    gm = trace(lambda x: torch.sin(x * 0 + 0.5).relu().cos(), (X,))
    settled = settled_as_eager(backend, gm)
    assert wrong(settled)["sin"].startswith("the engine gives 2 at [0, 0, 0, 0], PyTorch 0.479426")


def test_several_wrong_nodes_leave() -> None:
    settled = settled_as_eager(about("exp", "convolution_1"), network())
    assert wrong(settled).keys() == {"exp", "convolution_1"}


def test_an_operator_that_is_wrong_everywhere_leaves_at_once() -> None:
    backend = LyingPlanner(lambda layer, kind: kind == "ACTIVATION" and layer.startswith("relu"))
    settled = settled_as_eager(backend, network())
    assert wrong(settled).keys() == {"relu", "relu_1", "relu_2"}
    assert len(settled.failures) == 1


def test_one_wrong_engine_in_two_is_checked_once() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(torch.erfinv(torch.tanh(torch.relu(x) * 0.5)).sin().cos())

    backend = about("cos")
    settled = settled_as_eager(backend, trace(function, (X,)))
    assert wrong(settled).keys() == {"cos"}


@pytest.mark.parametrize("precision", ["model", "tf32", "fp16", "bf16"])
def test_a_precision_is_no_fault(precision: str) -> None:
    settled = settled_without_comparing(about(), network(), precision=precision)
    assert wrong(settled) == {}
    (one,) = settled.built
    assert one.check is not None
    assert one.check.compared == one.check.elements == X.numel()
    assert (one.check.loss is None) == (precision == "model")


def settled_without_comparing(
    backend: EngineBackend, gm: GraphModule, inputs: Sequence[Any] | None = (X,), **overrides: Any
) -> Settled:
    return settle(gm, Target(backend, options(**overrides)), inputs)


def test_a_wrong_kernel_is_found_in_float16() -> None:
    def triple(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value.view(-1)[value.argmax()] *= 3
        return value

    backend = LyingPlanner(lambda layer, kind: layer.startswith("convolution_1."), triple)
    settled = settled_without_comparing(backend, network(), precision="fp16")
    assert wrong(settled).keys() == {"convolution_1"}


def test_an_overflow_of_float16_is_found() -> None:
    weight = torch.full((4, 4, 1, 1), 100.0)

    def function(x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.conv2d(x, weight))
        return torch.sigmoid(torch.conv2d(torch.conv2d(x, weight), weight) * 1e-9)

    settled = settled_without_comparing(about(), trace(function, (X,)), precision="fp16")
    assert wrong(settled).keys() == {"convolution_1", "convolution_2"}
    assert all(detail.startswith("the engine gives inf") for detail in wrong(settled).values())


def test_a_loss_of_float16_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Differences of large numbers lose most digits, as PyTorch's own float16 does."""
    weight = torch.eye(4)[:, :, None, None] * 1.001

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(torch.conv2d(x + 1000.0, weight) - 1001.0, weight)

    with caplog.at_level(logging.WARNING):
        settled = settled_without_comparing(about(), trace(function, (X,)), precision="fp16")
    (one,) = settled.built
    assert one.check is not None
    assert one.check.loss is not None
    assert one.check.loss > 0.01
    assert "keep_fp32" in caplog.text


def test_nan_of_the_engine_is_wrong_and_nan_of_pytorch_is_not_compared() -> None:
    def nan(value: torch.Tensor) -> torch.Tensor:
        value = value.clone()
        value.flatten()[-1] = torch.nan
        return value

    backend = LyingPlanner(lambda layer, kind: layer.startswith("exp."), nan)
    settled = settled_as_eager(backend, network())
    assert wrong(settled).keys() == {"exp"}
    assert "the engine gives nan" in wrong(settled)["exp"]

    gm = trace(lambda x: torch.log(x - 0.5).relu().exp(), (X,))
    (one,) = settled_without_comparing(about(), gm).built
    assert one.check is not None
    assert one.check.compared == int((X >= 0.5).sum())


def test_integers_must_be_equal_but_for_ties() -> None:
    scores = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5]])
    gm = trace(lambda x: torch.topk(x.sin().relu() * 2, 3)[1], (scores,))

    def last(value: torch.Tensor) -> torch.Tensor:
        """Ties in another order."""
        if value.dtype.is_floating_point:
            return value
        return torch.where(value == 1, 3, torch.where(value == 3, 1, value))

    def is_topk(layer: str, kind: str) -> bool:
        return kind == "TOPK"

    ties = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.5], [0.1, 0.0, 0.3, 0.0, 0.5]])
    settled = settled_without_comparing(LyingPlanner(is_topk, last), gm, [ties])
    assert wrong(settled) == {}
    gm = trace(lambda x: torch.topk(x.sin().relu() * 2, 3)[1], (scores,))
    settled = settled_without_comparing(LyingPlanner(is_topk, last), gm, [scores])
    assert "topk" in wrong(settled)


def test_integers_without_floats_have_no_ties() -> None:
    i = torch.arange(12).reshape(3, 4)
    gm = trace(lambda x: (x * 2 + 1).flip(0) * 3, (i,))
    backend = LyingPlanner(lambda layer, kind: layer.startswith("add."))
    assert wrong(settled_without_comparing(backend, gm, [i])).keys() == {"add"}


def test_an_engine_that_fails_on_its_inputs_is_wrong() -> None:
    def fail(value: torch.Tensor) -> torch.Tensor:
        raise EngineError("CUDA error 700")

    backend = LyingPlanner(lambda layer, kind: layer.startswith("exp."), fail)
    settled = settled_as_eager(backend, network())
    assert wrong(settled) == {"exp": "the engine fails on its inputs: CUDA error 700"}


def test_off_checks_nothing() -> None:
    backend = about("exp")
    settled = settled_without_comparing(backend, network(), self_check="off")
    assert wrong(settled) == {}
    assert [one.check for one in settled.built] == [None]
    assert backend.runs == 0


def test_raise_raises_and_names_the_node() -> None:
    with pytest.raises(EngineError, match=r"answers wrongly: exp = aten\.exp\.default: the"):
        settled_without_comparing(about("exp"), network(), self_check="raise")


def test_reference_is_checked_on_demand_only(reference: EngineBackend) -> None:
    for how, expected in (("auto", False), ("raise", True)):
        (one,) = settled_without_comparing(reference, network(), self_check=how).built
        assert (one.check is not None) == expected


def test_an_engine_for_another_machine_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FailingPlanner(lambda layers: "")
    monkeypatch.setattr(backend, "runnable", False)
    (one,) = settled_without_comparing(backend, network()).built
    assert str(one.check) == "not checked: the engine cannot run on this machine"


def test_without_an_example_values_are_made_up() -> None:
    backend = about("exp")
    settled = settled_without_comparing(backend, network(), None)
    assert wrong(settled).keys() == {"exp"}
    assert {one.check.values for one in settled.built if one.check} == {"made-up"}


def test_what_was_found_is_kept_beside_the_plan(tmp_path: Path) -> None:
    backend = about("exp")
    first = settled_without_comparing(backend, network(), cache_dir=tmp_path)
    runs, builds = backend.runs, len(backend.builds)
    again = settled_without_comparing(backend, network(), cache_dir=tmp_path)
    assert (backend.runs, len(backend.builds)) == (runs, builds)
    assert wrong(again) == wrong(first)
    assert [one.check for one in again.built] == [one.check for one in first.built]
    # Another user of the cache asks for an error.
    with pytest.raises(EngineError, match="exp"):
        settled_without_comparing(backend, network(), cache_dir=tmp_path, self_check="raise")


def test_made_up_values_do_not_stand_for_an_example(tmp_path: Path) -> None:
    backend = about()
    settled_without_comparing(backend, network(), None, cache_dir=tmp_path)
    runs = backend.runs
    (one,) = settled_without_comparing(backend, network(), cache_dir=tmp_path).built
    assert backend.runs == runs + 1
    assert one.check is not None
    assert one.check.values == "example"
    (one,) = settled_without_comparing(backend, network(), None, cache_dir=tmp_path).built
    assert backend.runs == runs + 1


def test_a_plan_that_is_built_again_is_checked_again(tmp_path: Path) -> None:
    backend = about()
    settled_without_comparing(backend, network(), cache_dir=tmp_path)
    for plan in tmp_path.glob("plans/*"):
        plan.unlink()
    runs = backend.runs
    settled_without_comparing(backend, network(), cache_dir=tmp_path)
    assert backend.runs == runs + 1


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = torch.nn.ModuleList(torch.nn.Conv2d(4, 4, 3) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            x = torch.tanh(torch.sin(torch.cos(convolution(x))))
        return x


def test_what_is_wrong_stays_out_of_a_loaded_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = about("sin_1")
    monkeypatch.setattr("fxtrt.engines.target.select", lambda name: backend)
    torch.manual_seed(0)
    model = Model().eval()
    compiled = fxtrt.compile(model, (X,), cache_dir=tmp_path / "cache", min_cluster_size=1)
    before = fxtrt.report(compiled)
    assert [row.node for row in before.rejections if row.code == "wrong"] == ["sin_1"]
    assert "256 of 256" in str(before) or "elements compared on example values" in str(before)
    assert fxtrt.Coverage.from_json(before.to_json()) == replace(before)
    fxtrt.save(compiled, tmp_path / "model.fxtrt")
    runs, builds = backend.runs, len(backend.builds)
    loaded = fxtrt.load(tmp_path / "model.fxtrt", model, cache_dir=None)
    assert (backend.runs, len(backend.builds)) == (runs, builds)
    after = fxtrt.report(loaded)
    assert after.rejections == before.rejections
    assert [row.check for row in after.clusters] == [row.check for row in before.clusters]
    with torch.no_grad():
        torch.testing.assert_close(loaded(X), model(X))


def test_the_precision_of_torch_is_left_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    settled_without_comparing(about(), network())
    assert torch.get_float32_matmul_precision() == before
