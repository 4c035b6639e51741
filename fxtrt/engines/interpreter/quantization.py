"""Execute QUANTIZE and DEQUANTIZE, to and from 8-bit integers."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    layer,
)


@layer("QUANTIZE", "IQuantizeLayer")
def quantize(layer: Layer) -> Compute:
    axis = layer.raw.axis
    _require_int8(layer.output_dtype())

    def compute(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        steps = torch.round(x.float() / _along(scale.float(), axis, x.dim()))
        if zero is not None:
            steps = steps + _along(zero.float(), axis, x.dim())
        return steps.clamp(-128, 127).to(torch.int8)

    return compute


@layer("DEQUANTIZE", "IDequantizeLayer")
def dequantize(layer: Layer) -> Compute:
    axis, dtype = layer.raw.axis, layer.output_dtype()
    _require_int8(layer.network.features.to_torch(layer.raw.get_input(0).dtype))

    def compute(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        wide = x.float()
        if zero is not None:
            wide = wide - _along(zero.float(), axis, x.dim())
        return (wide * _along(scale.float(), axis, x.dim())).to(dtype)

    return compute


def _require_int8(dtype: torch.dtype) -> None:
    if dtype != torch.int8:
        raise NotImplementedError(f"only torch.int8 is implemented, not {dtype}")


def _along(values: Tensor, axis: int, rank: int) -> Tensor:
    """Reshape `values`, which are one or one for each element of `axis`, to broadcast along it."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])
