"""Padding and cropping at the edges: one SLICE that samples outside of its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.context import Context
from ..graph.sizes import (
    Size,
    is_static,
    is_unbacked,
)
from ..registry import converts

aten = torch.ops.aten

_SAMPLE_MODES = {"reflect": "REFLECT", "replicate": "CLAMP", "circular": "WRAP"}


def _pad_known(pad: Sequence[Size]) -> str | None:
    unknown = [size for size in pad if is_unbacked(size)]
    return f"pad={list(pad)} depends on data" if unknown else None


def _padding_known(padding: Sequence[Size]) -> str | None:
    return _pad_known(padding)


def _pad(ctx: Context, x: Any, pad: Sequence[Size], mode: str, value: float = 0.0) -> Any:
    """`pad` holds (before, after) of the last dimension, then of the one before it, and so on."""
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


@converts(aten.constant_pad_nd.default, check=_pad_known)
def constant_pad_nd(ctx: Context, x: Any, pad: Sequence[Size], value: float) -> Any:
    """constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor"""
    return _pad(ctx, x, pad, "FILL", value)


def _grows_around(pad: Sequence[Size], mode: str) -> str | None:
    # With a crop at one end, torch takes what to repeat at the other from the cropped tensor.
    if mode == "circular" and not all(is_static(size) and int(size) >= 0 for size in pad):
        return f"pad={list(pad)} is not known to grow every side, as circular padding must"
    return None


@converts(aten.pad.default, check=(_pad_known, _grows_around))
def pad(ctx: Context, x: Any, pad: Sequence[Size], mode: str, value: float | None) -> Any:
    """pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor"""
    if mode == "constant":
        return _pad(ctx, x, pad, "FILL", 0.0 if value is None else value)
    return _pad(ctx, x, pad, _SAMPLE_MODES[mode])


@converts(
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    check=_padding_known,
)
def reflection_pad(ctx: Context, x: Any, padding: Sequence[Size]) -> Any:
    """reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor"""
    return _pad(ctx, x, padding, "REFLECT")


@converts(
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
    check=_padding_known,
)
def replication_pad(ctx: Context, x: Any, padding: Sequence[Size]) -> Any:
    """replication_pad2d(Tensor self, SymInt[4] padding) -> Tensor"""
    return _pad(ctx, x, padding, "CLAMP")
