"""Execute layers that sample images at fractional coordinates: RESIZE and GRID_SAMPLE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    layer,
)

_ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "HALF_UP": lambda x: torch.floor(x + 0.5),
    "HALF_DOWN": lambda x: torch.ceil(x - 0.5),
    "FLOOR": torch.floor,
    "CEIL": torch.ceil,
}


@dataclass(frozen=True)
class Sampling:
    """How a RESIZE layer finds and weighs the input elements of an output element."""

    mode: str
    transformation: str
    rounding: str
    upper_for_single_pixel: bool
    cubic_coefficient: float
    exclude_outside: bool

    def resize(self, x: Tensor, axis: int, size: int, scale: float | None) -> Tensor:
        """Resize `x` to `size` elements along `axis`; `scale` overrides size / length."""
        length = x.shape[axis]
        if size == length and scale in (None, 1.0):
            return x
        at = self._coordinates(length, size, scale).to(x.device)
        if self.mode == "NEAREST":
            return x.index_select(axis, _clamped(_ROUNDINGS[self.rounding](at), length))
        if self.mode == "LINEAR":
            return _lerp(x, axis, at)
        return self._cubic(x, axis, at)

    def _coordinates(self, length: int, size: int, scale: float | None) -> Tensor:
        out = torch.arange(size, dtype=torch.float32)
        if size == 1 and self.upper_for_single_pixel:
            return torch.zeros_like(out)
        if self.transformation == "ALIGN_CORNERS":
            step = torch.tensor((length - 1) / (size - 1) if size > 1 else 0.0)
            return out * step
        step = torch.tensor(length / size if scale is None else 1.0 / scale)
        if self.transformation == "ASYMMETRIC":
            return out * step
        return (out + 0.5) * step - 0.5

    def _cubic(self, x: Tensor, axis: int, at: Tensor) -> Tensor:
        base = torch.floor(at)
        offsets = torch.arange(-1, 3, device=x.device).unsqueeze(1)
        distance = (at - base - offsets).abs()
        weights = _cubic_weights(distance, self.cubic_coefficient)
        taps = base + offsets
        if self.exclude_outside:
            weights = weights * ((taps >= 0) & (taps < x.shape[axis]))
            weights = weights / weights.sum(0)
        shape = [-1 if i == axis else 1 for i in range(x.dim())]
        parts = [
            x.index_select(axis, _clamped(tap, x.shape[axis])) * weight.reshape(shape)
            for tap, weight in zip(taps, weights, strict=True)
        ]
        return torch.stack(parts).sum(0)


@layer("RESIZE", "IResizeLayer")
def resize(layer: Layer) -> Compute:
    raw = layer.raw
    # Reading the shape of a dynamic layer is an error.
    scales: Sequence[float] = () if layer.has(1) else tuple(raw.scales)
    static = None if layer.has(1) or scales else tuple(raw.shape)
    sampling = Sampling(
        raw.resize_mode.name,
        raw.coordinate_transformation.name,
        raw.nearest_rounding.name,
        raw.selector_for_single_pixel.name == "UPPER",
        raw.cubic_coeff,
        bool(raw.exclude_outside),
    )

    def compute(x: Tensor, dynamic: Tensor | None = None) -> Tensor:
        if scales:
            sizes = _scaled(x.shape, scales)
        else:
            sizes = list(static or ()) if dynamic is None else dynamic.tolist()
        wide = x if sampling.mode == "NEAREST" else x.float()
        # The last axis comes first, while the others may still be small: it is the only one along
        # which single elements are copied, and not whole rows.
        for axis in reversed(range(x.dim())):
            scale = scales[axis] if scales else None
            wide = sampling.resize(wide, axis, sizes[axis], scale)
        return wide.to(x.dtype)

    return compute


def _scaled(shape: Sequence[int], scales: Sequence[float]) -> list[int]:
    """Return the output sizes, multiplied in float32 as in TensorRT, where 10 * 0.7 gives 7."""
    exact = torch.tensor(shape, dtype=torch.float32) * torch.tensor(scales, dtype=torch.float32)
    return [int(size) for size in exact.floor()]


def _lerp(x: Tensor, axis: int, at: Tensor) -> Tensor:
    base = torch.floor(at)
    low = x.index_select(axis, _clamped(base, x.shape[axis]))
    high = x.index_select(axis, _clamped(base + 1, x.shape[axis]))
    weight = (at - base).reshape([-1 if i == axis else 1 for i in range(x.dim())])
    return low.lerp_(high, weight)


def _clamped(coordinates: Tensor, length: int) -> Tensor:
    return coordinates.clamp(0, length - 1).long()


def _cubic_weights(distance: Tensor, a: float) -> Tensor:
    """Return the kernel of cubic interpolation at `distance` from its centre."""
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))


_GRID_MODES = {"NEAREST": "nearest", "LINEAR": "bilinear", "CUBIC": "bicubic"}
_GRID_PADDINGS = {"FILL": "zeros", "CLAMP": "border", "REFLECT": "reflection"}


@layer("GRID_SAMPLE", "IGridSampleLayer")
def grid_sample(layer: Layer) -> Compute:
    raw = layer.raw
    mode = _GRID_MODES[raw.interpolation_mode.name]
    padding = _GRID_PADDINGS[raw.sample_mode.name]
    align = raw.align_corners
    return lambda x, grid: F.grid_sample(x, grid, mode, padding, align)
