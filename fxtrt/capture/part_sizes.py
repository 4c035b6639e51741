"""Turns the example call of a model's part into the dynamic shapes to capture it with."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from ..graph.specs import Call

__all__ = ["region_counts"]

_MOST_IMAGES = 16
_MOST_ROWS = 1024
"""A leading size above _MOST_IMAGES is taken for a number of regions of interest. It depends on the
picture, so the part is compiled for up to _MOST_ROWS of them, or for as many as the example has."""


def region_counts(call: Call) -> Any:
    """Make those leading sizes dynamic that are numbers of regions."""

    def spec(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] > _MOST_IMAGES:
            return {0: Dim.AUTO(max=max(_MOST_ROWS, value.shape[0]))}
        return None

    return pytree.tree_map(spec, (*call.args, *call.kwargs.values()))
