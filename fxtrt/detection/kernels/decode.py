"""Load, decode and clip boxes within kernels, with the roundings that PyTorch has on a GPU.

Launch kernels that call these with `**EXACT`: a contraction of `a * b + c` would round once where
PyTorch rounds twice, and a box may pass a threshold by that.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import triton
import triton.language as tl

from ..box_coding import SCALE_CLAMP
from .exponential import exp

__all__ = [
    "EXACT",
    "clip",
    "clip_box",
    "decode",
    "inverses",
    "is_finite",
    "load_anchor",
    "load_deltas",
    "load_four",
    "store_four",
]

EXACT = {"enable_fp_fusion": False}
"""The option of a launch by which nothing is contracted.

Every launch states it: Triton 3.9 warns its user where it is left to the default."""
_SCALE_CLAMP = tl.constexpr(SCALE_CLAMP)


def inverses(weights: Sequence[float]) -> tuple[float, ...]:
    """Return what `decode` multiplies deltas by: PyTorch on a GPU divides by scalars like this."""
    return tuple(1.0 / struct.unpack("f", struct.pack("f", weight))[0] for weight in weights)


@triton.jit
def decode(dx, dy, dw, dh, x1, y1, x2, y2, inverse_weights):
    """Move and scale boxes as `box_coding.apply_deltas` does; return x1, y1, x2 and y2.

    Args:
        dx: float32, as all the others.
        inverse_weights: the tuple that `inverses` returns.
    """
    width = x2 - x1
    height = y2 - y1
    x = dx * inverse_weights[0] * width + (x1 + 0.5 * width)
    y = dy * inverse_weights[1] * height + (y1 + 0.5 * height)
    width = exp(_limited(dw * inverse_weights[2])) * width
    height = exp(_limited(dh * inverse_weights[3])) * height
    return x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height


@triton.jit
def _limited(x):
    """Limit dw or dh as both libraries do; NaN stays NaN."""
    return tl.where(x > _SCALE_CLAMP, _SCALE_CLAMP, x)


@triton.jit
def clip(x, most):
    """Limit a coordinate to [0, most]; NaN stays NaN, which `tl.minimum` would lose on a GPU."""
    return tl.where(x > most, most, tl.where(x < 0, 0.0, x))


@triton.jit
def is_finite(x):
    return tl.abs(x) < float("inf")


@triton.jit
def clip_box(x1, y1, x2, y2, size, mask):
    """Limit boxes to the height and the width that lie at `size`."""
    height = tl.load(size, mask=mask)
    width = tl.load(size + 1, mask=mask)
    return clip(x1, width), clip(y1, height), clip(x2, width), clip(y2, height)


@triton.jit
def load_anchor(cell_anchors, number, x, y, horizontal, vertical, mask, OFFSET: tl.constexpr):
    """Load cell anchors and move them to the cells in columns x and rows y of a level.

    The shift is computed in float64 and rounded once, as in `anchors.grid_anchors`.

    Args:
        horizontal, vertical: the level's strides.
    """
    x = (x.to(tl.float64) * horizontal + horizontal.to(tl.float64) * OFFSET).to(tl.float32)
    y = (y.to(tl.float64) * vertical + vertical.to(tl.float64) * OFFSET).to(tl.float32)
    x1, y1, x2, y2 = load_four(cell_anchors + number * 4, 1, mask)
    return x + x1, y + y1, x + x2, y + y2


@triton.jit
def load_deltas(base, pixel, anchor, pixels, mask, ANCHORS: tl.constexpr, LAST: tl.constexpr):
    """Load the four deltas of anchors from the maps of an image and level.

    Args:
        base: where these maps begin; they have `pixels` pixels.
        LAST: whether they are channels-last.
    """
    if LAST:
        place = (pixel * ANCHORS + anchor) * 4
        step = 1
    else:
        place = anchor * 4 * pixels + pixel
        step = pixels
    return load_four(base + place, step, mask)


@triton.jit
def load_four(base, step, mask):
    """Load four numbers, `step` apart, as float32."""
    return (
        tl.load(base, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + step, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 2 * step, mask=mask, other=0.0).to(tl.float32),
        tl.load(base + 3 * step, mask=mask, other=0.0).to(tl.float32),
    )


@triton.jit
def store_four(base, x1, y1, x2, y2, mask):
    """Store four neighbours."""
    tl.store(base, x1, mask=mask)
    tl.store(base + 1, y1, mask=mask)
    tl.store(base + 2, x2, mask=mask)
    tl.store(base + 3, y2, mask=mask)
