"""Make the symbolic sizes of fake results whose real sizes depend on data."""

from __future__ import annotations

import torch
from torch import Tensor

from ...graph.sizes import size_range

__all__ = ["fake_selection", "new_count"]


def fake_selection(boxes: Tensor) -> Tensor:
    """Return the fake result of an operator that picks some of N boxes.

    Returns:
        (K,), int64: indices of boxes, where K is any number from 0 to N.
    """
    _, most = size_range(boxes.shape[0])
    count = torch.library.get_ctx().new_dynamic_size(min=0, max=most)
    return boxes.new_empty(count, dtype=torch.int64)


def new_count(scores: Tensor, most: int, classes: int = 1) -> torch.SymInt:
    """Return a new symbolic size: the number of picked scores, from 0 to `most` in each class.

    Args:
        scores: (N, ...); at most N scores of a class can be picked.
    """
    _, high = size_range(scores.shape[0])
    most = most if high is None else min(most, high)
    return torch.library.get_ctx().new_dynamic_size(min=0, max=most * classes)
