"""Assign regions to the levels of a feature pyramid by their areas, as the libraries do."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["level_borders", "levels_of"]

_INFINITY = 0x7F800000
"""The bits of the float32 infinity. Floats that are not negative are ordered as their bits are."""


def levels_of(
    areas: Tensor, scales: Sequence[float], size: int, canonical_level: int, library: str
) -> Tensor:
    """Return the level of each area, counted from the first one.

    It may be one that has no features. A negative area has the level -1, which is none.

    Args:
        scales: the size of each level divided by that of the image.
        size: the side of a square that belongs to `canonical_level`.
        library: "detectron2" or "torchvision", whose roundings decide.
    """
    if len(scales) == 1:
        return torch.zeros_like(areas, dtype=torch.int64)
    ratio = torch.sqrt(areas) / size
    if library == "detectron2":
        levels = canonical_level + torch.log2(ratio + 1e-8)
    else:
        levels = canonical_level + torch.log2(ratio) + torch.tensor(1e-6)
    first, last = (int(-math.log2(scale)) for scale in (scales[0], scales[-1]))
    levels = torch.clamp(torch.floor(levels), min=first, max=last) - first
    return torch.where(areas >= 0, levels, -1.0).to(torch.int64)


@functools.lru_cache(maxsize=64)
def level_borders(
    scales: tuple[float, ...], size: int, canonical_level: int, library: str
) -> tuple[float, ...]:
    """Return the smallest area of each level but the first, found by bisection.

    A kernel that compares areas with these decides exactly as `levels_of` does on the CPU.
    """
    rule = (scales, size, canonical_level, library)
    levels = torch.arange(1, int(levels_of(_float32(_INFINITY), *rule)) + 1)
    low = torch.zeros_like(levels)
    high = torch.full_like(levels, _INFINITY)
    while (low < high).any():
        middle = (low + high) // 2
        enough = levels_of(_float32(middle), *rule) >= levels
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    return tuple(_float32(high).tolist())


def _float32(bits: int | Tensor) -> Tensor:
    return torch.as_tensor(bits).to(torch.int32).view(torch.float32)
