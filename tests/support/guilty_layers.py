"""A chain of layers, some of which lose their signal in float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["Chain", "chain", "images", "least_quality"]


class Layer(nn.Module):
    """A convolution whose signal is a small part of its result, which has a large offset."""

    def __init__(self, channels: int, offset: float) -> None:
        super().__init__()
        conv: Any = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.orthogonal_(conv.weight.data[..., 1, 1])
        conv.bias.data += offset
        self.conv, self.offset = conv, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return torch.tanh(y - self.offset if self.offset else y)


class Chain(nn.Module):
    """Layers one after the other, and a classifier."""

    def __init__(self, offsets: Sequence[float], channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Layer(channels, offset) for offset in offsets))
        self.head = nn.Linear(channels, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.layers(x).mean((2, 3)))
        return result


def chain(count: int, offsets: Mapping[int, float], channels: int = 4) -> Chain:
    """Return a chain of `count` layers, whose guilty ones have these offsets."""
    torch.manual_seed(0)
    return Chain([offsets.get(i, 0.0) for i in range(count)], channels).eval()


def images(count: int, channels: int = 4) -> list[tuple[torch.Tensor]]:
    """Return calls of a chain."""
    torch.manual_seed(1)
    return [(torch.randn(1, channels, 10, 10),) for _ in range(count)]


def least_quality(predictions: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """Return 1 less the largest error, relative to the largest result."""
    pairs = zip(predictions, expected, strict=True)
    return 1.0 - max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
