"""Define `fxtrt::best_of_each_class`, which applies `best_above` to each class of a table."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from .best_above import best_above
from .data_dependent_sizes import new_count

__all__ = ["best_of_each_class"]


@custom_op("fxtrt::best_of_each_class", mutates_args=())
def best_of_each_class(
    scores: Tensor, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply `best_above` to each column but the first, which is the background's.

    Args:
        scores: (N, classes).

    Returns:
        (K,) scores, and twice (K,), int64: their rows and their columns; column after column.
    """
    parts = []
    for label in range(1, scores.shape[1]):
        best, index = best_above(scores[:, label], threshold, most)
        parts.append((best, index, torch.full_like(index, label)))
    best, row, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return best, row, labels


@best_of_each_class.register_fake
def _(scores: Tensor, threshold: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    count = new_count(scores, most, scores.shape[1] - 1)
    rows, columns = (scores.new_empty(count, dtype=torch.int64) for _ in range(2))
    return scores.new_empty(count), rows, columns


explain("fxtrt::best_of_each_class", "how many scores are high enough depends on the data")
