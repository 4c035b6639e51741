"""Define `fxtrt::best_above`, which picks the highest scores above a threshold."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from .data_dependent_sizes import new_count

__all__ = ["best_above", "best_of_table"]


@custom_op("fxtrt::best_above", mutates_args=())
def best_above(
    scores: Tensor, threshold: float, most: int, stable: bool = False
) -> tuple[Tensor, Tensor]:
    """Return the `most` highest scores above `threshold`, by falling score.

    Args:
        scores: (N,).
        stable: order equal scores as `torch.sort` does, not `torch.topk`.

    Returns:
        (K,) scores, and (K,), int64: their positions in `scores`.
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
    count = new_count(scores, most)
    return scores.new_empty(count), scores.new_empty(count, dtype=torch.int64)


def best_of_table(
    scores: Tensor, threshold: float, most: int, stable: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply `best_above` to all scores of a table together.

    Args:
        scores: (N, classes).

    Returns:
        (K,) scores, and twice (K,), int64: their rows and their columns.
    """
    best, index = best_above(scores.flatten(), threshold, most, stable)
    classes = scores.shape[1]
    return best, torch.div(index, classes, rounding_mode="floor"), index % classes


explain("fxtrt::best_above", "how many scores are high enough depends on the data")
