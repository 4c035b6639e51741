"""An engine module gives the same numbers whether its engine can take the inputs or not."""

from __future__ import annotations

import logging

import pytest
import torch
from torch.fx import GraphModule

from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.graph.specs import TensorSpec
from fxtrt.runtime.engine_module import EngineModule


def graph() -> GraphModule:
    return trace(lambda x: torch.relu(x) * 2 + 1, (torch.randn(4, 3),), dynamic=True)


@pytest.fixture
def module(reference: EngineBackend) -> EngineModule:
    gm = graph()
    network = convert(gm, reference.features)
    spec = TensorSpec("x0", torch.float32, (1, 3), (4, 3), (8, 3))
    return EngineModule("cluster_0", reference.load(network, [spec], network.outputs), gm)


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        pytest.param(torch.randn(4, 3), None, id="as built"),
        pytest.param(torch.randn(8, 3), None, id="largest"),
        pytest.param(torch.randn(0, 3), "is empty", id="empty"),
        pytest.param(torch.randn(9, 3), r"expected \(1..8\)x3", id="too large"),
        pytest.param(torch.randn(4, 3).double(), "float64", id="dtype"),
        pytest.param(torch.randn(3, 4).t(), None, id="not contiguous"),
    ],
)
def test_inputs_that_the_engine_cannot_take_run_in_pytorch(
    module: EngineModule, x: torch.Tensor, reason: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(module(x)[0], torch.relu(x) * 2 + 1)
    if reason is None:
        assert module.fallbacks == {}
    else:
        (recorded,) = module.fallbacks
        assert module.fallbacks[recorded] == 2
        assert len([r for r in caplog.records if "runs in PyTorch" in r.message]) == 1


def test_a_plan_for_another_machine_runs_in_pytorch() -> None:
    module = EngineModule("cluster_0", None, graph())
    x = torch.randn(4, 3)
    torch.testing.assert_close(module(x)[0], torch.relu(x) * 2 + 1)
    assert list(module.fallbacks) == ["the plan was built for another machine"]


def test_outputs_lie_in_memory_as_in_eager(reference: EngineBackend) -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (
            torch.relu(x.permute(0, 2, 3, 1)),
            torch.relu(x),
            torch.relu(x[:, :1]).expand(2, 3, 4, 5),
        )

    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    gm = trace(function, (x,))
    network = convert(gm, reference.features)
    module = EngineModule("c", reference.load(network, network.inputs, network.outputs), gm)
    actual, expected = module(x), function(x)
    torch.testing.assert_close(tuple(actual), expected)
    assert [a.stride() for a in actual[:2]] == [e.stride() for e in expected[:2]]
