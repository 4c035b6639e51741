"""A small detector-like model: convolutions, an operator that takes halves, and a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.library import custom_op

from fxtrt.graph.formats import takes_half

__all__ = ["RECEIVED", "Head", "Levels", "Together", "pool_levels", "score_levels"]

RECEIVED: list[list[Tensor]] = []
"""The features of each call of `pool_levels`, newest last; tests clear it."""


@custom_op("fxtrt_test::pool_levels", mutates_args=())
def pool_levels(features: list[Tensor], weights: Tensor) -> Tensor:
    """Return the weighted sum of the means of all levels, (N, C), in the features' dtype."""
    RECEIVED.append(features)
    means = [feature.float().mean((2, 3)) for feature in features]
    total = sum(mean * weight for mean, weight in zip(means, weights, strict=True))
    assert isinstance(total, Tensor)
    return total.to(features[0].dtype)


@pool_levels.register_fake
def _(features: list[Tensor], weights: Tensor) -> Tensor:
    assert len({feature.dtype for feature in features}) == 1
    return features[0].new_empty(features[0].shape[:2])


takes_half("fxtrt_test::pool_levels", "features")


@custom_op("fxtrt_test::score_levels", mutates_args=())
def score_levels(logits: list[Tensor], deltas: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the largest logit and delta of each image, in float32 always."""
    pairs = [torch.stack([t.float().amax((1, 2, 3)) for t in some]) for some in (logits, deltas)]
    return pairs[0].amax(0), pairs[1].amax(0)


@score_levels.register_fake
def _(logits: list[Tensor], deltas: list[Tensor]) -> tuple[Tensor, Tensor]:
    best = logits[0].new_empty(logits[0].shape[:1], dtype=torch.float32)
    return best, torch.empty_like(best)


takes_half("fxtrt_test::score_levels", "logits", "deltas")


class Together(nn.Module):
    """Two levels of features with `channels` each."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.first(torch.relu(self.stem(x)))
        return first, self.second(torch.relu(first))


class Head(nn.Module):
    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, 32)
        self.last = nn.Linear(32, 4)

    def forward(self, pooled: Tensor) -> Tensor:
        hidden = torch.relu(self.hidden(pooled.flatten(1)))
        scores: Tensor = self.last(torch.relu(hidden)).softmax(-1)
        return scores


class Levels(nn.Module):
    """All of it: the class scores of each image."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = Together(channels)
        self.head = Head(channels)
        self.register_buffer("weights", torch.tensor([1.0, 0.5]))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(pool_levels(list(self.body(x)), self.weights))
        return scores
