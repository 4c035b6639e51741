"""A converter that is wrong is found: its cluster, its node, and by how much it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphs import replace_converter
from torch import nn

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.diagnostics.bisect import bisect, first_difference
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.settings import Settings

aten = torch.ops.aten
SETTINGS = Settings(engine="reference", cache_dir=None)


def wrong_tanh(ctx: Any, x: Any) -> Any:
    """sigmoid, for a change."""
    return ctx.activation("SIGMOID", x)


def test_the_first_wrong_node_of_the_first_wrong_cluster(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        a = torch.erfinv((torch.relu(x) * 0.3 + 0.1).sin())
        b = torch.tanh(torch.exp(a.cos()) + 1)
        c = torch.topk(b, 2)[0]
        return torch.tanh(torch.erfinv(torch.tanh(c) * 0.9) + 1) * 2

    gm = trace(function, (torch.rand(3, 4),))
    x = [torch.rand(3, 4)]
    assert first_difference(gm, x, Target(reference, SETTINGS)) is None
    replace_converter(monkeypatch, aten.tanh.default, wrong_tanh)
    culprit = first_difference(gm, x, Target(reference, SETTINGS))
    assert culprit is not None
    assert culprit.cluster == "cluster_1"
    assert culprit.node.name == "tanh"
    assert "cluster_1: tanh = aten.tanh.default" in str(culprit)
    assert not any(difference.agrees for difference in culprit.differences)


class Halves(nn.Module):
    """Two parts that export, and a whole that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.second = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> Any:
        y = self.first(x)
        if y.sum() > 1e9:
            raise ValueError("unreachable, and enough to stop an export")
        return self.second(y)


def test_a_model_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, inputs = Halves().eval(), (torch.randn(2, 4),)
    assert bisect(model, inputs, SETTINGS) is None
    replace_converter(monkeypatch, aten.tanh.default, wrong_tanh)
    culprit = bisect(model, inputs, SETTINGS)
    assert culprit is not None
    assert str(culprit).endswith(" in second.1]")


def test_fuel_is_for_the_whole_model() -> None:
    torch.manual_seed(0)
    model, inputs = Halves().eval(), (torch.randn(2, 4),)
    counts = [
        len(fxtrt.report(fxtrt.compile(model, inputs, settings=SETTINGS, fuel=fuel)).clusters)
        for fuel in (0, 1, 2)
    ]
    assert counts == [0, 1, 2]
