"""Replace batch norm by an equivalent for a number of regions that depends on data."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph.sizes import is_static
from .recipes import Equivalents

__all__ = ["NORMS"]

_batch_norm = F.batch_norm
"""torch's own function, read at import: during capture the equivalent replaces it."""


def _equivalent(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Replace `torch.nn.functional.batch_norm`, which branches on whether the input is empty."""
    if is_static(input.shape[0]) or training or running_mean is None or running_var is None:
        return _batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    normalised: Tensor = torch._native_batch_norm_legit_no_training(
        input, weight, bias, running_mean, running_var, momentum, eps
    )[0]
    return normalised


NORMS: Equivalents = {"torch.nn.functional.batch_norm": _equivalent}
"""The equivalents for models that normalise the features of regions."""
