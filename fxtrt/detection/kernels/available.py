"""Tell whether the kernels of this package can be used, without importing Triton."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

__all__ = ["TRITON", "kernels_read"]

TRITON = find_spec("triton") is not None
"""Whether the kernels of this package can be imported. PyTorch brings Triton along on Linux."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def kernels_read(maps: Tensor) -> bool:
    """Return whether the kernels can be imported and read maps of this dtype."""
    return TRITON and maps.dtype in _DTYPES
