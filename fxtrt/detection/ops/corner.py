"""Define `fxtrt::corner`, which cuts the padding off what was computed from a padded image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["corner"]


@custom_op("fxtrt::corner", mutates_args=())
def corner(x: Tensor, height: int, width: int) -> Tensor:
    """Copy the upper left corner of (C, H, W) into a tensor of shape (C, height, width).

    It stands in place of a slice. Tracing a slice adds a guard on whether the slice is the whole
    tensor, as it is for an image without padding, and the graph would fit only one of both cases.
    """
    return x[:, :height, :width].clone(memory_format=torch.contiguous_format)


@corner.register_fake
def _(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty((x.shape[0], height, width))


explain("fxtrt::corner", "it cuts off the padding, a copy that is worth no engine")
