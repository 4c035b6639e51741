"""The device that tests of Triton kernels put their tensors on."""

from __future__ import annotations

import os

__all__ = ["DEVICE"]

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
"""Triton's interpreter takes tensors of the CPU."""
