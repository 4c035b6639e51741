"""Replace `len` by a function that returns lengths which depend on data as symbolic sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["symbolic_len"]


def symbolic_len(value: Any) -> int | torch.SymInt:
    """Return what `len` returns, or a SymInt, which `len` itself refuses."""
    length: int | torch.SymInt
    length = value.shape[0] if isinstance(value, Tensor) else value.__len__()
    return length
