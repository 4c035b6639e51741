"""Stack results of varying length into tensors of fixed shape."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["new_counts", "pad_rows"]


def pad_rows(parts: Sequence[Tensor], length: int, value: float) -> Tensor:
    """Stack tensors after padding the first dimension of each to `length` with `value`.

    Args:
        parts: (K, ...) each, with K up to `length` and otherwise equal shapes; at least one.

    Returns:
        (len(parts), length, ...).
    """
    stacked = parts[0].new_full((len(parts), length, *parts[0].shape[1:]), value)
    for row, part in zip(stacked, parts, strict=True):
        row[: len(part)] = part
    return stacked


def new_counts(parts: Sequence[Tensor]) -> Tensor:
    """Return (len(parts),), int32: the length of each."""
    return torch.tensor([len(p) for p in parts], dtype=torch.int32, device=parts[0].device)
