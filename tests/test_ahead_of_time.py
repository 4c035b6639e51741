"""fxtrt.compile: a copy of the model that gives the same, ahead of time."""

from __future__ import annotations

import copy
import logging
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.errors import (
    CaptureError,
    ConversionError,
    EngineError,
    FxtrtError,
    SettingsError,
)
from fxtrt.registry import Converter, registered

aten = torch.ops.aten
X = torch.randn(2, 3, 16, 16)


class Features(nn.Module):
    """A backbone: two levels in a dict."""

    size_divisibility = 4

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.high = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        low = self.low(x)
        return {"low": low, "high": self.high(low)}


class Detector(nn.Module):
    """A model that does not export: its second half depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Features()
        self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU())

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = self.backbone(x)
        regions = features["low"].permute(0, 2, 3, 1).reshape(-1, 4)
        kept = regions[regions[:, 0] > 0]
        if kept.sum() > 1e9:
            raise ValueError("unreachable, and enough to stop an export")
        return [self.head(kept), features["high"]]


def make(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def compiled(model: nn.Module, *inputs: Any, **options: Any) -> nn.Module:
    return fxtrt.compile(model, inputs, engine="reference", **options)


def test_the_whole_model_where_it_exports() -> None:
    model = make(Features)
    fast = compiled(model, X)
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))
    coverage = fxtrt.report(fast)
    assert coverage.flops_share == 1.0
    assert len(coverage.clusters) == 1


def test_the_copy_is_the_model_in_all_but_speed() -> None:
    model = make(Features)
    fast = compiled(model, X)
    assert isinstance(fast, Features)
    assert fast.size_divisibility == 4
    assert list(fast.state_dict()) == list(model.state_dict())
    assert "forward" not in model.__dict__


def test_each_part_where_the_whole_does_not_export() -> None:
    model = make(Detector)
    fast = compiled(model, X)
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))
    coverage = fxtrt.report(fast)
    assert {row.modules.split(".")[0] for row in coverage.clusters} == {"backbone", "head"}
    codes = [row.code for row in coverage.rejections]
    assert codes.count("capture") == 1
    assert set(codes) == {"capture", "outside"}, "the lines of forward are in no graph"
    assert coverage.flops_share == 1.0


def test_region_counts_may_vary() -> None:
    model = make(Detector)
    fast = compiled(model, X)
    with torch.no_grad():
        for _ in range(3):
            x = torch.randn_like(X)
            torch.testing.assert_close(fast(x), model(x))
    assert fast.head.forward.fallbacks == {}  # type: ignore[union-attr]  # a GuardedForward


def test_dynamic_batch_and_size() -> None:
    model = make(Features)
    spec = {0: torch.export.Dim("b", min=1, max=8), 2: torch.export.Dim("h", min=4, max=64)}
    fast = compiled(model, X, dynamic_shapes=(spec,))
    with torch.no_grad():
        for shape in ((1, 3, 5, 16), (4, 3, 64, 16)):
            x = torch.randn(shape)
            torch.testing.assert_close(fast(x), model(x))
    assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda m: (X[:1], {}), "expected 2x3x16x16", id="shape"),
        pytest.param(lambda m: (X.double(), {}), "float64", id="dtype"),
        pytest.param(lambda m: (m.train() and X, {}), "training mode", id="training"),
    ],
)
def test_other_calls_run_in_pytorch(
    change: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make(Features)
    fast = compiled(model, X)
    args, kwargs = change(fast)
    reference = make(Features).to(args.dtype)
    fast.to(args.dtype)
    reference.train(fast.training)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        torch.testing.assert_close(fast(args, **kwargs), reference(args))
    assert message in caplog.text or "changed after compiling" in caplog.text


def test_changed_weights_run_in_pytorch(caplog: pytest.LogCaptureFixture) -> None:
    model = make(Features)
    fast = compiled(model, X)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        model.low[0].weight.mul_(2)  # type: ignore[index, union-attr]  # a convolution
        torch.testing.assert_close(fast(X), model(X))
    assert "changed after compiling" in caplog.text


def test_training_mode_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"call model.eval\(\)"):
        compiled(make(Features).train(), X)


def test_inputs_that_require_grad_are_refused() -> None:
    with pytest.raises(CaptureError, match="requires grad"):
        compiled(make(Features), X.clone().requires_grad_())


def test_a_list_entry_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"matches no node: did you mean 'aten.relu"):
        compiled(make(Features), X, blacklist=("aten.rellu",))


def test_a_module_in_the_blacklist_stays_in_pytorch() -> None:
    model = make(Features)
    fast = compiled(model, X, blacklist=("high",))
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))
    coverage = fxtrt.report(fast)
    assert {row.module.split(".")[0] for row in coverage.rejections} == {"high"}
    assert {row.modules for row in coverage.clusters} == {"low"}


class BrokenRelu:
    """Makes the converter of relu fail, as a bug in it would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(ctx: Any, x: Any) -> Any:
            raise ValueError("broken on purpose")

        broken = Converter(aten.relu.default, fail, parameters={"self": "x"})
        monkeypatch.setattr("fxtrt.registry._CONVERTERS", {**registered(), broken.target: broken})


def test_calls_that_do_not_convert_fall_back_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(Detector)
    BrokenRelu(monkeypatch)
    fast = compiled(model, X, blacklist=("head.1", "head.3"), min_cluster_size=1)
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))
    coverage = fxtrt.report(fast)
    failed = [row for row in coverage.rejections if row.code == "build_failed"]
    assert {row.module.split(".")[0] for row in failed} == {"backbone"}
    assert {row.target for row in failed} == {"aten.relu.default"}
    assert "broken on purpose" in failed[0].detail
    assert {row.modules.split(".")[0] for row in coverage.clusters} == {"backbone", "head"}
    assert coverage.flops_share > 0.9


def test_a_failing_build_can_be_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    BrokenRelu(monkeypatch)
    with pytest.raises(ConversionError, match=r"relu.*broken on purpose.*blacklist"):
        compiled(make(Features), X, on_build_failure="raise")


def test_a_report_builds_nothing() -> None:
    coverage = fxtrt.report(make(Detector), (X,), engine="reference")
    assert coverage.flops_share == 1.0
    assert all(row.build is None for row in coverage.clusters)
    with pytest.raises(FxtrtError, match="needs example inputs"):
        fxtrt.report(make(Detector))


def test_threads_share_a_compiled_model() -> None:
    model = make(Features)
    fast = compiled(model, X)
    inputs = [torch.randn_like(X) for _ in range(8)]
    results: dict[int, Any] = {}

    def run(index: int) -> None:
        with torch.no_grad():
            results[index] = fast(inputs[index])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with torch.no_grad():
        for index, x in enumerate(inputs):
            torch.testing.assert_close(results[index], model(x))


def test_hooks_are_called_once() -> None:
    model = make(Detector)
    for module in (model.backbone, model.backbone.low[0]):  # type: ignore[union-attr, index]
        module.register_forward_pre_hook(lambda _, args: (args[0] + 1,))  # type: ignore[union-attr]  # a submodule
    model.head.register_forward_hook(lambda _, args, output: output * 2)  # type: ignore[union-attr]  # a submodule
    fast = compiled(model, X)
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))
    assert fxtrt.report(fast).flops_share == 1.0


class EvenOrOdd(nn.Module):
    """Branches on a size, and takes two inputs of one size."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        factor = 2 if x.shape[0] % 2 == 0 else 3
        return torch.relu(x * factor + y)


@pytest.mark.parametrize(("rows", "others"), [(4, 4), (6, 6), (5, 5), (4, 1)])
def test_sizes_that_the_graph_is_not_for_run_in_pytorch(rows: int, others: int) -> None:
    model = make(EvenOrOdd)
    auto = {0: torch.export.Dim.AUTO(max=8)}
    fast = compiled(model, torch.ones(4, 3), torch.ones(4, 3), dynamic_shapes=(auto, auto))
    x, y = torch.randn(rows, 3), torch.randn(others, 3)
    torch.testing.assert_close(fast(x, y), model(x, y))
    assert bool(fast.forward.fallbacks) == ((rows, others) not in ((4, 4), (6, 6)))  # type: ignore[attr-defined]  # a GuardedForward


def test_one_submodule_in_training_mode_is_enough() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 500), nn.ReLU(), nn.Sigmoid(), nn.Dropout(0.5)).eval()
    fast = compiled(model, torch.randn(2, 4))
    x = torch.randn(2, 4)
    assert (fast(x) == 0).sum() == 0
    fast[3].train()  # type: ignore[index]  # a Sequential
    assert (fast(x) == 0).sum() > 100


def test_weights_with_other_memory_run_in_pytorch() -> None:
    model = make(Features)
    fast = compiled(model, X)
    model.low[0].weight.data = torch.randn(4, 3, 3, 3)  # type: ignore[index, union-attr]
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps, lambda m: compiled(m, X)])
def test_a_compiled_model_is_not_copied(copied: Any) -> None:
    fast = compiled(make(Features), X)
    with pytest.raises(FxtrtError, match="do that with the model that it was compiled from"):
        copied(fast)


def test_an_engine_that_does_not_load_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise EngineError("the plan is for another driver")

    monkeypatch.setattr("fxtrt.engines.reference.ReferenceBackend.load", fail)
    model = make(Features)
    fast = compiled(model, X)
    with torch.no_grad():
        torch.testing.assert_close(fast(X), model(X))
    assert {row.detail for row in fxtrt.report(fast).rejections} == {
        "the plan is for another driver"
    }


class Counting(nn.Module):
    """Writes to its input and to a buffer, and does not export."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sigmoid())
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.get_buffer("calls").add_(1)
        if x.add_(1).sum().item() > 1e9:
            return x
        return self.body(x)  # type: ignore[no-any-return]  # a module's call


def test_compiling_leaves_inputs_and_buffers_alone() -> None:
    model, x = make(Counting), torch.zeros(2, 4)
    fast = compiled(model, x)
    assert fxtrt.report(fast).clusters
    assert x.sum() == 0
    assert model.get_buffer("calls") == 0


class Squeezing(nn.Module):
    """Gives another rank at batch 1, which no trace at batch 2 can know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x.squeeze() * 2) + 1


def test_a_batch_of_one_is_never_guessed(caplog: pytest.LogCaptureFixture) -> None:
    model = make(Squeezing)
    batch = torch.export.Dim("b", min=1, max=8)
    with caplog.at_level(logging.WARNING):
        fast = compiled(model, torch.randn(2, 3), dynamic_shapes=({0: batch},))
        for size in (1, 2, 5):
            x = torch.randn(size, 3)
            torch.testing.assert_close(fast(x), model(x))
    assert "at a size of 1" in caplog.text


def test_views_of_outputs_in_another_memory_order() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = torch.relu(x.t() * 2 + 1)
            return y, y.as_strided((4,), (1,))

    x = torch.randn(3, 4)
    for fast in (
        compiled(Model().eval(), x),
        torch.compile(Model(), backend="fxtrt", options={"engine": "reference"}),
    ):
        torch.testing.assert_close(fast(x), Model()(x))


class Widened(nn.Module):
    """Its padded width, known as 32 * ((s1 + 31) // 32), is taken for s1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = (x.shape[1] + 31) // 32 * 32
        padded = nn.functional.pad(x * 2, (0, width - x.shape[1]))
        return padded[None].expand(4, x.shape[0], x.shape[1]) + 1


def test_a_size_of_two_names_is_not_broadcast() -> None:
    sides = {i: torch.export.Dim.DYNAMIC(min=2, max=256) for i in (0, 1)}
    model = make(Widened)
    fast = compiled(model, torch.rand(3, 64), dynamic_shapes=(sides,))
    for size in ((3, 64), (5, 96)):
        x = torch.rand(size)
        torch.testing.assert_close(fast(x), model(x))
    assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


def test_a_graph_module_is_compiled_in_the_mode_that_it_is_in() -> None:
    """Its copies are in training mode, where norms would write to the weights of the original."""
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    model = torch.fx.symbolic_trace(layers).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        expected = model(X)
        fast = compiled(model, X, min_cluster_size=1)
        torch.testing.assert_close(fast(X), expected)
    assert len(fxtrt.report(fast).clusters) == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
