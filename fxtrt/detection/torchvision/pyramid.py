"""Find the levels of a backbone's pyramid without running it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

__all__ = ["Shapes", "features_of", "level_shapes"]

Shapes = Mapping[str, tuple[int, int]]
"""The height and the width of each level, by name."""


def features_of(backbone: Any, images: Tensor) -> dict[str, Tensor]:
    """Return the features by level, as torchvision's detectors name them."""
    features = backbone(images)
    return {"0": features} if isinstance(features, Tensor) else dict(features)


def level_shapes(backbone: torch.nn.Module, height: int, width: int) -> Shapes | str:
    """Return the levels that images of this size have, or why there are none."""
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
            weight = next(backbone.parameters(), torch.empty(0))
            images = torch.empty(1, 3, height, width, dtype=weight.dtype, device=weight.device)
            levels = features_of(backbone, images)
            return {name: (level.shape[2], level.shape[3]) for name, level in levels.items()}
    except Exception as error:  # A user's own backbone may raise anything.
        return f"its backbone has no levels for {height}x{width} pixels: {error!r}"
