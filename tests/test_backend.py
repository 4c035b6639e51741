"""torch.compile(backend="fxtrt"): the same numbers, whatever becomes of each graph."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import fxtrt
from fxtrt.errors import PassError
from fxtrt.lowering.lower import lower

OPTIONS = {"engine": "reference"}


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model: Any, **options: Any) -> Any:
    return torch.compile(model, backend="fxtrt", options=OPTIONS | options)


class Block(nn.Module):
    """Convolution, batch norm, residual add: the smallest thing worth an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        torch.nn.init.uniform_(self.bn.get_buffer("running_mean"), -1, 1)
        torch.nn.init.uniform_(self.bn.get_buffer("running_var"), 0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)) + x)


@pytest.fixture
def block() -> nn.Module:
    torch.manual_seed(0)
    return Block().eval()


X = torch.randn(2, 4, 8, 8)


def codes(model: Any) -> set[str]:
    return {row.code for row in fxtrt.report(model).rejections}


def test_equals_eager_and_reports(block: nn.Module) -> None:
    model = compiled(block)
    with torch.no_grad():
        torch.testing.assert_close(model(X), block(X))
    coverage = fxtrt.report(model)
    assert coverage.flops_share == 1.0
    assert len(coverage.clusters) == 1
    assert coverage.rejections == ()


def test_the_entry_point_needs_no_import() -> None:
    code = (
        "import sys, torch; m = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Sigmoid(), "
        "torch.nn.ReLU()); assert 'fxtrt' not in sys.modules; "
        "f = torch.compile(m, backend='fxtrt', options={'engine': 'reference'}); "
        "x = torch.randn(3); torch.testing.assert_close(f(x), m(x)); assert 'fxtrt' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_that_change_are_noticed(
    block: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    model = compiled(block)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        model(X)
        block.conv.weight.mul_(2)  # type: ignore[union-attr, operator]  # a convolution's weight
        torch.testing.assert_close(model(X), block(X))
        block.load_state_dict({k: v + 0.5 for k, v in block.state_dict().items()})
        torch.testing.assert_close(model(X), block(X))
    assert "weights changed" in caplog.text


def test_inference_mode_runs_in_engines(block: nn.Module) -> None:
    model = compiled(block)
    with torch.inference_mode():
        torch.testing.assert_close(model(X), block(X))
    assert fxtrt.report(model).flops_share == 1.0


def test_inputs_that_require_grad_stay_in_pytorch(block: nn.Module) -> None:
    model = compiled(block)
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    assert codes(model) == {"requires_grad"}


def test_training_stays_in_pytorch(block: nn.Module) -> None:
    block.train()
    twin = Block()
    twin.load_state_dict(block.state_dict())
    model = compiled(block)
    torch.testing.assert_close(model(X), twin(X))
    for name, buffer in block.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name))
    model(X).sum().backward()
    assert block.conv.weight.grad is not None  # type: ignore[union-attr]  # a convolution's weight


def test_graphs_with_nothing_to_gain_are_returned_at_once() -> None:
    model = compiled(nn.ReLU())
    torch.testing.assert_close(model(X), X.relu())
    assert codes(model) == {"too_small"}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        pytest.param(torch.randn(3, 4, dtype=torch.float64), "dtype", id="float64"),
        pytest.param(torch.randn(3, 4, dtype=torch.complex64), "dtype", id="complex"),
        pytest.param(torch.randn(0, 4), "shape", id="zero size"),
    ],
)
def test_what_engines_cannot_hold_is_rejected(value: torch.Tensor, code: str) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return (x * 2 + 1) * x - 3

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    model = compiled(Model())
    torch.testing.assert_close(model(value), function(value))
    assert codes(model) == {code}


def test_scalars_are_tensors_too() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2 + 1).sigmoid() - 3

    model, x = compiled(Model()), torch.tensor(0.5)
    torch.testing.assert_close(model(x), Model()(x))
    assert len(fxtrt.report(model).clusters) == 1


def test_mutated_inputs_and_returned_views() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x.add_(1)
            return torch.relu(x).sigmoid() * 2, x[0]

    model = compiled(Model())
    a, b = X.clone(), X.clone()
    torch.testing.assert_close(model(a), Model()(b))
    torch.testing.assert_close(a, b)


def test_graph_breaks_are_counted_with_their_reasons(block: nn.Module) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Block().eval(), Block().eval()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.one(x)
            torch._dynamo.graph_break()
            result: torch.Tensor = self.two(x)
            return result

    original = Model().eval()
    model = compiled(original)
    with torch.no_grad():
        torch.testing.assert_close(model(X), original(X))
    coverage = fxtrt.report(model)
    assert len(coverage.clusters) == 2
    assert len(coverage.graph_breaks) == 1
    assert "test_backend.py" in coverage.graph_breaks[0].source
    assert coverage.capture == ("captured by torch.compile in 2 graphs, 1 graph break",)


def test_two_models_have_two_reports(block: nn.Module) -> None:
    one, two = compiled(block), compiled(nn.Sequential(block, block))
    with torch.no_grad():
        one(X)
        two(X)
    assert fxtrt.report(two).converted == 2 * fxtrt.report(one).converted


def test_a_report_before_the_first_call_says_so(block: nn.Module) -> None:
    with pytest.raises(fxtrt.errors.FxtrtError, match="call the model once"):
        fxtrt.report(compiled(block))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"presision": "fp16"}, "did you mean 'precision'"), ({"precision": 16}, "fp16")],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str, block: nn.Module) -> None:
    with pytest.raises(Exception, match=message):
        compiled(block, **options)(X)


def test_new_sizes_compile_again_and_stay_right(block: nn.Module) -> None:
    model = compiled(block)
    with torch.no_grad():
        for size in (8, 9, 12, 8):
            x = torch.randn(2, 4, size, size)
            torch.testing.assert_close(model(x), block(x))


class Stage(nn.Module):
    """A block behind a graph break."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return self.block(x)  # type: ignore[no-any-return]  # a module's call


def test_blocks_that_share_a_graph_keep_their_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered = []

    def counted(*args: Any) -> Any:
        lowered.append(args)
        return lower(*args)

    monkeypatch.setattr("fxtrt.backend.lower", counted)
    stages = nn.Sequential(Stage(), Stage(), Stage()).eval()
    model = compiled(stages)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(model(X), stages(X))
    assert len(lowered) == 3


def test_sizes_that_depend_on_data_are_reported() -> None:
    model = compiled(lambda x: torch.relu(x[x[:, 0] > 0] @ torch.ones(4, 5)) + 1, blacklist=("mm",))
    x = torch.randn(6, 4)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        result = model(x)
    torch.testing.assert_close(result, torch.relu(x[x[:, 0] > 0] @ torch.ones(4, 5)) + 1)


def test_a_number_that_is_no_size_stays_out_alone() -> None:
    layers = [nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()]
    body = nn.Sequential(*layers).eval()
    model = compiled(lambda x, n: body(x) * n)
    x = torch.randn(2, 4)
    with torch.no_grad():
        for n in (2, 3, 5):
            torch.testing.assert_close(model(x, n), body(x) * n)


def test_a_pass_that_fails_leaves_the_graph_in_pytorch(
    block: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gm: Any) -> Any:
        raise PassError("broken on purpose")

    monkeypatch.setattr("fxtrt.lowering.lower.run_passes", fail)
    model = compiled(block)
    with torch.no_grad():
        torch.testing.assert_close(model(X), block(X))
    assert codes(model) == {"pass"}
    with pytest.raises(Exception, match="broken on purpose"), torch.no_grad():
        compiled(block, on_build_failure="raise")(X)


def test_a_list_entry_may_be_for_another_graph(
    block: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    model = compiled(block, blacklist=("aten.rleu", "aten.relu"))
    with caplog.at_level("INFO", logger="fxtrt"), torch.no_grad():
        torch.testing.assert_close(model(X), block(X))
    (message,) = [r.getMessage() for r in caplog.records if "matches no node" in r.getMessage()]
    assert message == (
        "in this graph the list entry 'aten.rleu' matches no node: did you mean 'aten.relu'?"
    )
    assert "blacklist" in codes(model)


def test_the_report_says_that_the_whole_was_captured(block: nn.Module) -> None:
    coverage = fxtrt.report(fxtrt.compile(block, (X,), engine="reference"))
    assert coverage.capture == ("captured whole",)
    assert "* captured whole" in str(coverage)
    assert "* captured whole" in coverage.to_markdown()
    assert fxtrt.Coverage.from_json(coverage.to_json()).capture == coverage.capture
