"""Models that read memory by strides, called with inputs that are laid out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fxtrt

OPTIONS: dict[str, Any] = {"engine": "reference", "min_cluster_size": 1}


class Direct(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.as_strided((2, 2), (1, 2), 1) * 2


class HandedOn(nn.Module):
    """The result of an elementwise operator has the strides of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu().as_strided((2, 2), (1, 2)) * 2


def alike() -> torch.Tensor:
    return torch.randn(3, 4)


def transposed() -> torch.Tensor:
    return torch.randn(4, 3).t()


def apart() -> torch.Tensor:
    return torch.randn(3, 8)[:, ::2]


def below() -> torch.Tensor:
    return torch.randn(5, 4)[1:4]


@pytest.mark.parametrize("jit", [False, True], ids=["compile", "torch.compile"])
@pytest.mark.parametrize("model", [Direct, HandedOn])
@pytest.mark.parametrize("call", [alike, transposed, apart, below])
def test_as_strided_of_an_input(
    model: Callable[[], nn.Module], call: Callable[[], torch.Tensor], jit: bool
) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = model().eval()
    x, example = call(), alike()
    with torch.no_grad():
        if jit:
            fast: Any = torch.compile(eager, backend="fxtrt", options=OPTIONS, dynamic=False)
            fast(example)
        else:
            fast = fxtrt.compile(eager, example, **OPTIONS)
        torch.testing.assert_close(fast(x), eager(x))
    if not jit:
        assert bool(fast.forward.fallbacks) == (call is not alike)


def test_other_models_take_inputs_of_any_strides() -> None:
    model = nn.Linear(4, 4).eval()
    fast: Any = fxtrt.compile(model, alike(), **OPTIONS)
    with torch.no_grad():
        for call in (transposed, apart, below):
            x = call()
            torch.testing.assert_close(fast(x), model(x))
    assert fast.forward.fallbacks == {}
