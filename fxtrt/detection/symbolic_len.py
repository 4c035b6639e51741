"""Lengths that depend on data, while a graph is captured."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..graph.sizes import size_range

__all__ = ["rows", "selection_of"]


def rows(value: Any) -> int | torch.SymInt:
    """`len`, which refuses a length that is no number yet."""
    length: int | torch.SymInt
    length = value.shape[0] if isinstance(value, Tensor) else value.__len__()
    return length


def selection_of(boxes: Tensor) -> Tensor:
    """What an operator's fake gives that picks some of N boxes: (K,), int64, K from 0 to N."""
    _, most = size_range(boxes.shape[0])
    count = torch.library.get_ctx().new_dynamic_size(min=0, max=most)
    return boxes.new_empty(count, dtype=torch.int64)
