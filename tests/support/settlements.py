"""Settles a small network on an engine that fails or lies, and holds it to eager."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.lowering.settle import Settled, settle
from fxtrt.lowering.stitch import stitch
from fxtrt.settings import Settings

__all__ = ["X", "left_with", "network", "options", "settled_as_eager"]

X = torch.rand(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def network(pairs: int = 3) -> GraphModule:
    """Convolutions with ReLUs; beside them a chain that holds no FLOPs, which the sum joins."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 4, 3, 3, generator=generator) * 0.2 for _ in range(pairs)]

    def function(x: torch.Tensor) -> torch.Tensor:
        grid = x.sin().cos().exp().abs().tanh()
        for weight in weights:
            x = torch.relu(torch.conv2d(x, weight, padding=1))
        return torch.sigmoid(x + grid)

    return trace(function, (X,))


def options(**overrides: Any) -> Settings:
    return Settings(**{"cache_dir": None, "min_cluster_size": 1, **overrides})


def left_with(code: str, settled: Settled) -> dict[str, str]:
    """The nodes that left with a code, with the details."""
    rejections = settled.partition.rejections
    return {node.name: r.detail for node, r in rejections.items() if r.code == code}


def settled_as_eager(
    backend: EngineBackend, gm: GraphModule, inputs: Sequence[Any] = (X,), **overrides: Any
) -> Settled:
    """Settle `gm`, and require the answers of PyTorch from the engines and the rest."""
    expected = gm(*inputs)
    settled = settle(gm, Target(backend, options(**overrides)), inputs)
    stitch(gm, [one.extracted for one in settled.built], [one.module for one in settled.built])
    torch.testing.assert_close(gm(*inputs), expected)
    return settled
