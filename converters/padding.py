"""Convert padding and cropping to one SLICE that samples outside of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import sizes_known
from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts

aten = torch.ops.aten

_PADS: dict[Any, str] = {
    aten.reflection_pad1d.default: "REFLECT",
    aten.reflection_pad2d.default: "REFLECT",
    aten.reflection_pad3d.default: "REFLECT",
    aten.replication_pad1d.default: "CLAMP",
    aten.replication_pad2d.default: "CLAMP",
    aten.replication_pad3d.default: "CLAMP",
}
_SAMPLE_MODES = {"reflect": "REFLECT", "replicate": "CLAMP", "circular": "WRAP"}


def _pad(ctx: Context, x: Any, pad: Sequence[Size], mode: str, value: float = 0.0) -> Any:
    """Pad or crop `x`.

    Args:
        pad: (before, after) of the last dimension, then of the one before it, and so on.
    """
    sizes = ctx.output.shape
    start: list[Size] = [0] * len(sizes)
    for i, before in enumerate(pad[::2]):
        start[-1 - i] = -before
    if all(is_static(size) and int(size) == 0 for size in pad):
        return x
    if all(is_static(size) and int(size) <= 0 for size in pad):
        return ctx.slice(x, start, sizes)
    dtype = ctx.output.dtype
    sampled = torch.int32 if dtype == torch.bool and not ctx.features.samples_bools else dtype
    fill = ctx.scalar(value, sampled) if mode == "FILL" else None
    padded = ctx.slice(ctx.cast(x, sampled), start, sizes, mode=mode, fill=fill)
    return ctx.cast(padded, dtype)


@converts(aten.constant_pad_nd.default, check=sizes_known)
def constant_pad_nd(ctx: Context, x: Any, pad: Sequence[Size], value: float) -> Any:
    """constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor"""
    return _pad(ctx, x, pad, "FILL", value)


def _grows_around(pad: Sequence[Size], mode: str) -> str | None:
    """Decline circular padding that might crop."""
    # With a crop at one end, torch takes what to repeat at the other from the cropped tensor.
    if mode == "circular" and not all(is_static(size) and int(size) >= 0 for size in pad):
        return f"pad={list(pad)} is not known to grow every side, as circular padding must"
    return None


@converts(aten.pad.default, check=(sizes_known, _grows_around))
def pad(ctx: Context, x: Any, pad: Sequence[Size], mode: str, value: float | None) -> Any:
    """pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor"""
    if mode == "constant":
        return _pad(ctx, x, pad, "FILL", 0.0 if value is None else value)
    return _pad(ctx, x, pad, _SAMPLE_MODES[mode])


@converts(*_PADS, check=sizes_known, renamed={"padding": "pad"})
def pad_from_within(ctx: Context, x: Any, pad: Sequence[Size]) -> Any:
    """reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor"""
    return _pad(ctx, x, pad, _PADS[ctx.target])
