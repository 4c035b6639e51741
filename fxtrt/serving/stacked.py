"""Lets a model of one batched tensor answer a list of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import ServingError

__all__ = ["Stacked"]


class Stacked(nn.Module):
    """Stacks images to one batch for `model`, and gives each image its rows of the answer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Sequence[Tensor]) -> list[Any]:
        """Return one answer for each image, in the structure of the model's own.

        Raises:
            ServingError: the first dimension of an output does not count images.
        """
        leaves, structure = pytree.tree_flatten(self.model(torch.stack(list(images))))
        for leaf in leaves:
            if not isinstance(leaf, Tensor) or leaf.shape[:1] != (len(images),):
                what = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                raise ServingError(
                    f"the model answers {len(images)} images with an output {what}, which has not "
                    f"one row for each"
                )
        rows = [[leaf[row] for leaf in leaves] for row in range(len(images))]
        return [pytree.tree_unflatten(row, structure) for row in rows]
