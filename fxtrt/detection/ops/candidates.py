"""Picks the best candidates above a threshold, as operators with a bounded number of results.

Importing this module defines the operators.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...graph.sizes import size_range
from ...registry import explain

__all__ = ["best_above", "best_of_each_class", "best_of_table"]


@torch.library.custom_op("fxtrt::best_above", mutates_args=())
def best_above(
    scores: Tensor, threshold: float, most: int, stable: bool = False
) -> tuple[Tensor, Tensor]:
    """The `most` highest scores above `threshold`, by falling score.

    Args:
        scores: (N,).
        stable: order equal scores as `torch.sort` does, not `torch.topk`.

    Returns:
        (K,) scores, and (K,), int64: where they stand in `scores`.
    """
    above = scores > threshold
    kept, index = scores[above], above.nonzero()[:, 0]
    count = min(most, len(kept))
    if stable:
        ordered, order = kept.sort(descending=True)
        return ordered[:count].clone(), index[order[:count]]
    best, order = kept.topk(count)
    return best, index[order]


@best_above.register_fake
def _(scores: Tensor, threshold: float, most: int, stable: bool = False) -> tuple[Tensor, Tensor]:
    count = _count(scores, most)
    return scores.new_empty(count), scores.new_empty(count, dtype=torch.int64)


def best_of_table(
    scores: Tensor, threshold: float, most: int, stable: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """`best_above` of all of (N, classes) scores: these, their rows, and their columns."""
    best, index = best_above(scores.flatten(), threshold, most, stable)
    classes = scores.shape[1]
    return best, torch.div(index, classes, rounding_mode="floor"), index % classes


@torch.library.custom_op("fxtrt::best_of_each_class", mutates_args=())
def best_of_each_class(
    scores: Tensor, threshold: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """`best_above` of each column but the first, which is the background's, one after the other.

    Args:
        scores: (N, classes).

    Returns:
        (K,) scores, (K,), int64: their rows, and (K,), int64: their columns.
    """
    parts = []
    for label in range(1, scores.shape[1]):
        best, index = best_above(scores[:, label], threshold, most)
        parts.append((best, index, torch.full_like(index, label)))
    best, row, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return best, row, labels


@best_of_each_class.register_fake
def _(scores: Tensor, threshold: float, most: int) -> tuple[Tensor, Tensor, Tensor]:
    count = _count(scores, most, scores.shape[1] - 1)
    rows, columns = (scores.new_empty(count, dtype=torch.int64) for _ in range(2))
    return scores.new_empty(count), rows, columns


def _count(scores: Tensor, most: int, classes: int = 1) -> torch.SymInt:
    """How many there are, for a fake: from none to the `most` of each class."""
    _, high = size_range(scores.shape[0])
    most = most if high is None else min(most, high)
    return torch.library.get_ctx().new_dynamic_size(min=0, max=most * classes)


for _name in ("best_above", "best_of_each_class"):
    explain(f"fxtrt::{_name}", "how many scores are high enough depends on the data")
