"""Asks a model what a server needs to know of it: slots, images at once, device, fallbacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..lowering.outcome import Outcome, outcome_of
from ..reporting.serving_rows import guard_rows

__all__ = ["device_of", "fallbacks_of", "images_at_once", "slots_of"]

_PLAIN_BATCH = 8
"""The most images in a batch for a model of which nothing is known."""


def slots_of(model: Any) -> int:
    """Return how many calls of a compiled model may be in engines at once; 1 for any other."""
    calls = [part.call for outcome in _outcomes(model) for part in outcome.reported]
    return max((call.slots.most for call in calls if call is not None), default=1)


def images_at_once(model: Any) -> int:
    """Return how many images a compiled detector takes at once; 8 for any other model."""
    counts = [outcome.target.settings.most_images for outcome in _outcomes(model)]
    return max(counts, default=_PLAIN_BATCH)


def device_of(model: Any) -> torch.device | None:
    """Return the device of a model's weights; None if it has none, or is any function."""
    if not isinstance(model, nn.Module):
        return None
    tensors = (tensor for part in (model.parameters(), model.buffers()) for tensor in part)
    first = next(tensors, None)
    return None if first is None else first.device


def fallbacks_of(model: Any) -> list[tuple[str, int, int]]:
    """Return each compiled module's path, compiled calls, and calls that ran in PyTorch."""
    if not isinstance(model, nn.Module):
        return []
    return [(row.module, row.compiled, row.calls - row.compiled) for row in guard_rows(model)]


def _outcomes(model: Any) -> Iterator[Outcome]:
    """Yield what became of the compiled models that are `model` or in it."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
        outcome = outcome_of(module)
        if outcome is not None:
            yield outcome
