"""Small models for int8: residual sums, a pool and a concatenation, and examples for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fxtrt.capture.arguments import call_of
from fxtrt.capture.model_parts import Captured, capture_model
from fxtrt.lowering.lower import normalize_model
from fxtrt.settings import Settings

__all__ = ["Joined", "Residual", "captured_of", "data", "residual", "settings_of"]


class Residual(nn.Module):
    """A stem, a pool, two blocks with residual sums (one of two convolutions), and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.first, self.second = nn.Conv2d(16, 16, 3, 1, 1), nn.Conv2d(16, 16, 3, 1, 1)
        self.wide, self.skip = nn.Conv2d(16, 32, 3, 2, 1), nn.Conv2d(16, 32, 1, 2)
        self.hidden, self.head = nn.Linear(32, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.stem(x).relu(), 2)
        x = (self.second(self.first(x).relu()) + x).relu()
        x = (self.wide(x) + self.skip(x)).relu()
        x = self.head(self.hidden(x.mean((2, 3))).relu())
        return x


class Joined(nn.Module):
    """Two branches that one convolution reads together, and a part of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.left, self.right = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)
        self.both = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 1))
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.both(torch.cat([self.left(x).relu(), self.right(x) * 4.0], 1))
        x = self.last(x.relu())
        return x


def residual() -> Residual:
    torch.manual_seed(0)
    return Residual().eval()


def data(count: int = 4, size: int = 32) -> list[tuple[Any, ...]]:
    """Examples in batches of two."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(2, 3, size, size, generator=generator),) for _ in range(count)]


def settings_of(**overrides: Any) -> Settings:
    """Those of int8 on the reference engine, without a cache."""
    given = {"engine": "reference", "precision": "int8", "cache_dir": None, **overrides}
    return Settings.of(None, given)


def captured_of(model: nn.Module, settings: Settings) -> Captured:
    """The normalized graph of a model."""
    captured = capture_model(model, call_of(model, data(1)[0]), None, settings)
    normalize_model(captured, settings)
    return captured
