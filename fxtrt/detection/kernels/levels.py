"""Hand the maps of all levels, and numbers for each level, to one kernel.

A kernel takes tuples with an entry per level and picks one by the number of the level. Triton
compiles a kernel anew for integers that are 1 or multiples of 16, also within tuples, where nothing
can tell it not to. Maps of other sizes must not cost a compilation, so integers are passed as
`odd(values)`, which are neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["odd", "pick", "pick_odd", "same_layout"]


def odd(values: Iterable[int]) -> tuple[int, ...]:
    """Encode positive integers for `pick_odd`."""
    return tuple(2 * int(value) + 1 for value in values)


@triton.jit
def pick(values, level):
    """Return `values[level]`, a number or a pointer."""
    picked = values[0]
    for i in tl.static_range(1, len(values)):
        picked = tl.where(level == i, values[i], picked)
    return picked


@triton.jit
def pick_odd(values, level):
    """Return the integer that `odd` encoded."""
    return pick(values, level) >> 1


def same_layout(maps: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], bool]:
    """Return the maps all in one dense layout, and whether it is channels-last.

    Maps that are all dense in the same layout are not copied.

    Args:
        maps: (B, channels, height, width) or (B, n). The latter count as channels-last with a
            single channel.
    """
    if all(m.dim() == 2 for m in maps):
        return tuple(m.contiguous() for m in maps), True
    if all(m.is_contiguous(memory_format=torch.channels_last) for m in maps):
        return tuple(maps), True
    return tuple(m.contiguous() for m in maps), False
