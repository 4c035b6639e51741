"""Compute `exp` and the sigmoid within kernels as PyTorch's CUDA kernels do.

Triton's own `exp` of float32 is approximate. CUDA's, which PyTorch calls, is in the library of
device functions that Triton links. The interpreter has no such library; float64 stands in there.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra import libdevice

__all__ = ["exp", "sigmoid"]

_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def exp(x):
    """Return the exponential of float32."""
    return tl.exp(x.to(tl.float64)).to(tl.float32) if _INTERPRETED else libdevice.exp(x)


@triton.jit
def sigmoid(x):
    """Return the sigmoid of float32."""
    return tl.div_rn(1.0, 1.0 + exp(-x))
