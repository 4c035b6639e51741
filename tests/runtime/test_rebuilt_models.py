"""Compiled models whose submodules and weights are exchanged, added or taken away."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fxtrt

pytestmark = pytest.mark.usefixtures("no_grad")


class _Pruned(nn.Module):
    """Its layers are there to be replaced."""

    shift: torch.Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.register_buffer("shift", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x).relu() * 3
        return y if self.shift is None else y + self.shift


def _another_layer(model: Any) -> None:
    model.first = nn.Linear(4, 4, bias=False)


def _one_more_around_it(model: Any) -> None:
    model.first = nn.Sequential(model.first, nn.Sigmoid())


def _a_bias(model: Any) -> None:
    model.first.bias = nn.Parameter(torch.ones(4))


def _a_buffer(model: Any) -> None:
    model.shift = torch.ones(4)


def _a_parametrization(model: Any) -> None:
    nn.utils.parametrize.register_parametrization(model.first, "weight", nn.Tanh())


CHANGES = {
    _another_layer: "the submodule 'first'",
    _one_more_around_it: "the submodule 'first'",
    _a_bias: "the weight 'first.bias'",
    _a_buffer: "the weight 'shift'",
    _a_parametrization: "the weight 'first.weight'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_compiled_model_that_is_built_differently_runs_in_pytorch(change: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    fast: Any = fxtrt.compile(_Pruned().eval(), x, engine="reference", min_cluster_size=1)
    before = fast(x)
    change(fast.eval())
    fast.eval()
    after = fast(x)
    torch.testing.assert_close(after, _Pruned.forward(fast, x))
    assert not torch.allclose(after, before)
    reason = f"{CHANGES[change]} was replaced after compiling: compile again"
    assert fast.forward.fallbacks == {reason: 1}
