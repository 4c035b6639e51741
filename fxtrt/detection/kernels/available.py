"""Tell whether Triton is installed, without importing it."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["TRITON"]

TRITON = find_spec("triton") is not None
"""Whether the kernels of this package can be imported. PyTorch brings Triton along on Linux."""
