"""Convert interpolation to another size to RESIZE layers that sample where torch samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch.fx import Node

from ..conversion.checks import is_floating
from ..conversion.context import Context
from ..graph.sizes import Size, expression, is_static
from ..registry import arguments_of, converts

aten = torch.ops.aten

_NEAREST = (
    aten.upsample_nearest1d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.default,
    aten.upsample_nearest3d.vec,
)
_NEAREST_EXACT = (
    aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.default,
    aten._upsample_nearest_exact3d.vec,
)
_INTERPOLATIONS: dict[Any, str] = {
    aten.upsample_linear1d.default: "LINEAR",
    aten.upsample_linear1d.vec: "LINEAR",
    aten.upsample_bilinear2d.vec: "LINEAR",
    aten.upsample_trilinear3d.default: "LINEAR",
    aten.upsample_trilinear3d.vec: "LINEAR",
    aten.upsample_bicubic2d.vec: "CUBIC",
}
_GRAIN = 256
"""Multiples of 1 / 256 up to 256 are exact in float32, and so are their products with sizes."""


@dataclass(frozen=True)
class Axis:
    """One resized dimension.

    scale: torch's factor, or None if torch computes the factor from the sizes.
    """

    size: Size
    output: Size
    scale: float | None

    @property
    def is_static(self) -> bool:
        return is_static(self.size) and is_static(self.output)

    @property
    def by_size(self) -> bool:
        """Return whether output / size is the factor that torch samples by."""
        if self.scale is None:
            return True
        if not self.is_static:
            return False
        return math.isclose(int(self.size) * self.scale, int(self.output), rel_tol=1e-9)

    @property
    def ratio(self) -> float | None:
        """Return the factor between the sizes, or None if it is unknown or not exact in float32."""
        quotient = expression(self.output) / expression(self.size)
        if not quotient.is_Rational:
            return None
        ratio = Fraction(int(quotient.p), int(quotient.q))
        return float(ratio) if _is_grained(ratio) else None

    def mismatch(self) -> str | None:
        """Return why TensorRT, given `scale`, might not give torch's output size, or None."""
        if self.scale is None:
            return f"the size {self.output} is given for one dimension, a scale for another"
        if not self.is_static:
            exact = _is_grained(Fraction(self.scale))
            return None if exact else f"scale {self.scale} of the dynamic size {self.size}"
        product = torch.tensor(float(self.size)) * torch.tensor(self.scale)
        if int(product) == int(self.output):
            return None
        return f"scale {self.scale} makes {int(product)} of {self.size}, not {self.output}"

    def nearest_mismatch(self, offset: float) -> str | None:
        """Return where torch's float32 arithmetic picks another element than the exact factor
        does."""
        if not self.is_static:
            return None
        size, output = int(self.size), int(self.output)
        one = torch.tensor(1.0)
        step = one * size / output if self.scale is None else (one.double() / self.scale).float()
        picked = torch.floor((torch.arange(output) + offset) * step).int().clamp(max=size - 1)
        exact = Fraction(size, output) if self.by_size else 1 / Fraction(float(self.scale or 1))
        for i, index in enumerate(picked.tolist()):
            if index != min(math.floor((i + Fraction(offset)) * exact), size - 1):
                return f"torch rounds the index of element {i} of {output} from {size} to {index}"
        return None


def _is_grained(ratio: Fraction) -> bool:
    return (ratio * _GRAIN).denominator == 1 and 0 < ratio <= _GRAIN


def _axes(node: Node) -> list[Axis]:
    """Return the resized dimensions of a call to any of the overloads of this file."""
    values = arguments_of(node)
    x = values["input"] if "input" in values else values["self"]
    sizes, outputs = x.meta["val"].shape[2:], node.meta["val"].shape[2:]
    if "scale_factors" in values:
        scales = values["scale_factors"] or [None] * len(sizes)
    else:
        scales = [value for name, value in values.items() if name.startswith("scales")]
    axes = [Axis(*axis) for axis in zip(sizes, outputs, scales, strict=True)]
    if values.get("align_corners"):
        # The corners fix the factor; a scale only decided on the sizes.
        axes = [replace(axis, scale=None) if axis.is_static else axis for axis in axes]
    return axes


def _any_sizes(
    output_size: Any,
    scale_factors: Any = None,
    scales: Any = None,
    scales_d: Any = None,
    scales_h: Any = None,
    scales_w: Any = None,
) -> str | None:
    """Accept all of them: `_axes` reads them off the node."""
    return None


def _sampled_alike(node: Node) -> str | None:
    """Decline scales that TensorRT would turn into other sizes than torch does."""
    axes = _axes(node)
    if all(axis.by_size for axis in axes):
        return None
    return _first_reason(axis.mismatch() for axis in axes)


def _picked_alike(node: Node) -> str | None:
    """Decline sizes for which torch's rounding picks another element than the exact factor."""
    offset = 0.5 if node.target in _NEAREST_EXACT else 0.0
    return _first_reason(axis.nearest_mismatch(offset) for axis in _axes(node))


def _first_reason(reasons: Iterable[str | None]) -> str | None:
    for reason in reasons:
        if reason is not None:
            return reason
    return None


def _factors(axes: Sequence[Axis], output: Sequence[Size]) -> list[float] | None:
    """Return the scales to resize by, or None if the layer takes the sizes of the output."""
    if not all(axis.by_size for axis in axes):
        return [float(axis.scale or 1.0) for axis in axes]
    if all(is_static(size) for size in output):
        return None
    # A dynamic size with a known factor needs no layers that compute it.
    ratios = [axis.ratio for axis in axes]
    known = [ratio for ratio in ratios if ratio is not None]
    return known if len(known) == len(ratios) else None


def _add_resize(ctx: Context, x: Any, mode: str, transformation: str) -> Any:
    layer = ctx.net.add_resize(x)
    layer.resize_mode = getattr(ctx.trt.InterpolationMode, mode)
    layer.coordinate_transformation = getattr(
        ctx.trt.ResizeCoordinateTransformation, transformation
    )
    shape = ctx.output.shape
    factors = _factors(_axes(ctx.node), shape)
    if factors is not None:
        layer.scales = [1.0, 1.0, *factors]
    elif all(is_static(size) for size in shape):
        layer.shape = tuple(int(size) for size in shape)
    else:
        layer.set_input(1, ctx.shapes.sizes(shape))
    return layer


@converts(
    *_NEAREST,
    *_NEAREST_EXACT,
    check=(is_floating, _any_sizes, _sampled_alike, _picked_alike),
    renamed={"input": "x"},
)
def upsample_nearest(ctx: Context, x: Any) -> Any:
    """upsample_nearest2d(Tensor self, SymInt[2] output_size, float? scales_h=None,
    float? scales_w=None) -> Tensor

    upsample_nearest2d.vec(Tensor input, SymInt[]? output_size, float[]? scale_factors) -> Tensor
    """
    exact = ctx.target in _NEAREST_EXACT
    layer = _add_resize(ctx, x, "NEAREST", "HALF_PIXEL" if exact else "ASYMMETRIC")
    # floor((i + 0.5) * step) is ((i + 0.5) * step - 0.5), the half-pixel coordinate, rounded.
    rounding = "HALF_UP" if exact else "FLOOR"
    layer.nearest_rounding = getattr(ctx.trt.ResizeRoundMode, rounding)
    return layer.get_output(0)


@converts(
    *_INTERPOLATIONS,
    check=(is_floating, _any_sizes, _sampled_alike),
    renamed={"input": "x"},
)
def interpolate(ctx: Context, x: Any, align_corners: bool) -> Any:
    """upsample_linear1d(Tensor self, SymInt[1] output_size, bool align_corners,
    float? scales=None) -> Tensor

    upsample_bilinear2d.vec(Tensor input, SymInt[]? output_size, bool align_corners,
    float[]? scale_factors) -> Tensor
    """
    mode = _INTERPOLATIONS[ctx.target]
    layer = _add_resize(ctx, x, mode, "ALIGN_CORNERS" if align_corners else "HALF_PIXEL")
    if align_corners:
        layer.selector_for_single_pixel = ctx.trt.ResizeSelector.UPPER
    if mode == "CUBIC":
        layer.cubic_coeff = -0.75
    return layer.get_output(0)
