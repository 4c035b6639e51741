"""Define the operators that round floats to int8 and back: a QUANTIZE and a DEQUANTIZE in one node.

One node stands for the pair, so that no partition can come between its two layers, and no int8
tensor passes a subgraph boundary. ATen's own operators of this kind cannot be traced with symbolic
sizes, and multiply by the inverse of the scale, where TensorRT divides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node
from torch.library import custom_op

__all__ = ["PER_CHANNEL", "PER_TENSOR", "fake_quantize", "fake_quantize_channels", "is_quantizer"]

_LOW, _HIGH = -128, 127


@custom_op("fxtrt::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: float) -> Tensor:
    """Round `x` to multiples of `scale` from -128 to 127 times it, ties to even.

    Args:
        x: of any floating dtype, which the result has too.
        scale: a finite number above 0.
    """
    return _rounded(x, torch.tensor(scale, dtype=torch.float32, device=x.device))


@custom_op("fxtrt::fake_quantize_channels", mutates_args=())
def fake_quantize_channels(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    """Round each channel of `x`, along the dimension `axis`, with its own `scale`, (C,) float32."""
    shape = [-1 if i == axis % x.dim() else 1 for i in range(x.dim())]
    return _rounded(x, scale.float().reshape(shape))


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    steps = torch.round(x.float() / scale).clamp(_LOW, _HIGH)
    return (steps * scale).to(x.dtype).contiguous()


@fake_quantize.register_fake
def _(x: Tensor, scale: float) -> Tensor:
    return x.new_empty(x.shape)


@fake_quantize_channels.register_fake
def _(x: Tensor, scale: Tensor, axis: int) -> Tensor:
    return x.new_empty(x.shape)


PER_TENSOR = torch.ops.fxtrt.fake_quantize.default
PER_CHANNEL = torch.ops.fxtrt.fake_quantize_channels.default


def is_quantizer(node: Node) -> bool:
    """Return whether a node is a pair of QUANTIZE and DEQUANTIZE."""
    return node.target in (PER_TENSOR, PER_CHANNEL)
