"""Tell whether Triton, which comes with PyTorch on Linux, can be imported."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["TRITON"]

TRITON = find_spec("triton") is not None
