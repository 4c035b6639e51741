"""Python attributes that a call assigns and the next one reads are in no graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fxtrt

pytestmark = pytest.mark.usefixtures("no_grad")


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.count = 0
        self.is_first = True
        self.mean = torch.zeros(4)
        self.stats = {"steps": [0]}


class Counts(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        y: torch.Tensor = self.linear(x)
        return y + self.count


class First(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x)
        if self.is_first:
            self.is_first = False
            return y
        return y.relu() - 1


class Averages(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x) - self.mean
        self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return y


class CountsDeep(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.stats["steps"][0] += 1
        y: torch.Tensor = self.linear(x)
        return y * self.stats["steps"][0]


@pytest.mark.parametrize("kind", [Counts, First, Averages, CountsDeep])
def test_it_answers_as_the_model_does_call_by_call(kind: type[Stateful]) -> None:
    model, x = kind().eval(), torch.randn(3, 4)
    fast = fxtrt.compile(model, (x,), engine="reference", min_cluster_size=1)
    for _ in range(3):
        x = torch.randn(3, 4)
        torch.testing.assert_close(fast(x), model(x))
    (row,) = [row for row in fxtrt.report(fast).rejections if row.code == "capture"]
    assert "assigns Python attributes that its next call reads" in row.detail


class Remembers(Stateful):
    """Keeps what it saw for others to read."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.mean = x.mean(0)
        self.stats["steps"].append(x.shape[0])
        y: torch.Tensor = self.linear(x)
        return y.relu().sigmoid()


class Writes(Stateful):
    """Its buffers differ from call to call, and its graph writes them."""

    calls: torch.Tensor
    total: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.calls.add_(1)
        self.total = self.total + 2
        y: torch.Tensor = self.linear(x)
        return y.relu() + self.calls + self.total


@pytest.mark.parametrize("kind", [Remembers, Writes])
def test_an_assignment_that_nobody_reads_does_no_harm(kind: type[Stateful]) -> None:
    model, x = kind().eval(), torch.randn(3, 4)
    alike = kind().eval()  # With buffers of its own.
    fast: Any = fxtrt.compile(model, (x,), engine="reference", min_cluster_size=1)
    torch.testing.assert_close(fast(x), alike(x))
    assert fxtrt.report(fast).capture == ("captured whole",)
    assert fast.forward.fallbacks == {}
