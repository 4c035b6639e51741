"""A file knows the nodes that left clusters which did not build: nothing fails again at loading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from failing_engine import FailingPlanner, no_implementation
from torch import nn

import fxtrt

X = torch.rand(1, 4, 8, 8)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> Any:
        for convolution in self.convolutions:
            x = torch.tanh(torch.sin(torch.cos(convolution(x))))
        return x


def culprits(message: str, *nodes: str) -> FailingPlanner:
    """A backend that fails on these nodes, of which the message may name one as {node}."""

    def find(layers: Sequence[str]) -> str:
        found = [node for node in nodes if f"{node}.0" in layers]
        return message.format(node=found[0]) if found else ""

    return FailingPlanner(find)


@pytest.mark.parametrize("partition", ["all", "measured"])
@pytest.mark.parametrize(
    "backend",
    [
        culprits(no_implementation("{node}.0"), "sin_1", "tanh_2"),
        culprits("Internal Error", "sin_1"),
    ],
)
def test_what_left_at_compiling_has_left_at_loading(
    backend: FailingPlanner, partition: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fxtrt.engines.target.select", lambda name: backend)
    torch.manual_seed(0)
    model = Backbone().eval()
    cache_dir = tmp_path / partition
    compiled = fxtrt.compile(model, (X,), cache_dir=cache_dir, partition=partition)
    before = fxtrt.report(compiled)
    failed = {row.node for row in before.rejections if row.code == "build_failed"}
    assert "sin_1" in failed
    assert before.flops_share > 0.9 or partition == "measured"
    fxtrt.save(compiled, tmp_path / "model.fxtrt")

    builds = len(backend.builds)
    loaded = fxtrt.load(tmp_path / "model.fxtrt", model, cache_dir=None)
    assert len(backend.builds) == builds
    after = fxtrt.report(loaded)
    assert after.rejections == before.rejections
    assert [row.ops for row in after.clusters] == [row.ops for row in before.clusters]
    with torch.no_grad():
        torch.testing.assert_close(loaded(X), model(X))
    # A file that was loaded is no worse a start: other engines are built as at compiling.
    other = fxtrt.load(tmp_path / "model.fxtrt", model, cache_dir=None, optimization_level=1)
    assert len(backend.builds) > builds
    again = fxtrt.report(other)
    assert {row.node for row in again.rejections if row.code == "build_failed"} == failed
