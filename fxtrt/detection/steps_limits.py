"""Refuse numbers in the host steps of a file that no detector has."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..errors import ArtifactError

__all__ = ["require_moments", "require_sizes"]

_LONGEST = 1 << 14
"""The longest side of an image, in pixels."""


def require_moments(mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse a mean and deviation of other than three channels, or that give no finite numbers.

    Raises:
        ArtifactError: it names the values.
    """
    sound = len(mean) == len(std) == 3 and all(map(math.isfinite, (*mean, *std))) and all(std)
    if not sound:
        raise ArtifactError(f"images have the mean {mean!r:.80} and the deviation {std!r:.80}")


def require_sizes(*sizes: int) -> None:
    """Refuse a size in pixels that is not from 1 to 16384.

    Raises:
        ArtifactError: it names the value.
    """
    for size in sizes:
        if not 1 <= size <= _LONGEST:
            raise ArtifactError(f"images have a size of {size} pixels")
