"""Convert convolutions of every kind to 2-D and 3-D CONVOLUTION and DECONVOLUTION layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..conversion.checks import one_floating_type
from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts

aten = torch.ops.aten

_ARRAY_DTYPES = (torch.float32, torch.float16)
"""Weights of these dtypes go into the layer. Others have no numpy array and become inputs."""


def insert_height(ctx: Context, x: Any) -> Any:
    """Reshape (N, C, L) to (N, C, 1, L) for any sizes: a 0 copies the input's size."""
    layer = ctx.net.add_shuffle(x)
    layer.reshape_dims = (0, 0, 1, -1)
    return layer.get_output(0)


def remove_height(ctx: Context, x: Any) -> Any:
    """Reshape (N, C, 1, L) to (N, C, L)."""
    layer = ctx.net.add_shuffle(x)
    layer.reshape_dims = (0, 0, -1)
    return layer.get_output(0)


def per_dimension(values: Sequence[int], count: int) -> tuple[int, ...]:
    """Return one value for each of `count` dimensions; torch may give one value for all."""
    return tuple(values) * (count if len(values) == 1 else 1)


def _one_type(input: torch.Tensor, weight: torch.Tensor) -> str | None:
    return one_floating_type(input=input, weight=weight)


def _spatial_rank(input: torch.Tensor) -> str | None:
    spatial = input.dim() - 2
    return None if 1 <= spatial <= 3 else f"{spatial} spatial dimensions are not 1, 2 or 3"


def _known_sizes(
    input: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[Size],
    padding: Sequence[Size],
    dilation: Sequence[Size],
    output_padding: Sequence[Size],
    groups: Size,
) -> str | None:
    sizes = [input.shape[1], *weight.shape, *stride, *padding, *dilation, *output_padding, groups]
    dynamic = [size for size in sizes if not is_static(size)]
    return f"a channel count, kernel size or step is dynamic: {dynamic[0]}" if dynamic else None


def _transposed(
    input: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
) -> str | None:
    if not transposed:
        return None
    if max(stride) > 1 and max(dilation) > 1:
        return f"transposed with stride {tuple(stride)} and dilation {tuple(dilation)}"
    count = input.dim() - 2
    pairs = zip(per_dimension(padding, count), per_dimension(output_padding, count), strict=True)
    if any(extra > pad for pad, extra in pairs):
        return f"output_padding {tuple(output_padding)} is more than padding {tuple(padding)}"
    return None


@converts(
    aten.convolution.default,
    check=(_one_type, _spatial_rank, _known_sizes, _transposed),
    constants=("weight", "bias"),
)
def convolution(
    ctx: Context,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """convolution(Tensor input, Tensor weight, Tensor? bias, SymInt[] stride, ...) -> Tensor"""
    dtype = ctx.dtype(input)
    if transposed and dtype == torch.bfloat16:
        # TensorRT-RTX has no bfloat16 DECONVOLUTION; torch too computes in float32 inside.
        input, weight, bias = (_in_float32(ctx, value) for value in (input, weight, bias))
    sizes = [int(size) for size in ctx.fake("weight").shape]
    flat = len(sizes) == 3
    x = insert_height(ctx, input) if flat else input
    if flat:
        sizes.insert(2, 1)
        weight = _reshape(ctx, weight, sizes)
    layer = _add_layer(ctx, x, weight, bias, sizes, transposed, int(groups))
    count = len(sizes) - 2
    layer.stride_nd = _after_height(stride, count, flat, 1)
    layer.dilation_nd = _after_height(dilation, count, flat, 1)
    layer.num_groups = int(groups)
    before = _after_height(padding, count, flat, 0)
    extra = _after_height(output_padding, count, flat, 0) if transposed else (0,) * count
    if any(extra):
        layer.pre_padding = before
        layer.post_padding = tuple(pad - more for pad, more in zip(before, extra, strict=True))
    else:
        layer.padding_nd = before
    y = layer.get_output(0)
    return ctx.cast(remove_height(ctx, y) if flat else y, dtype)


def _after_height(values: Sequence[int], count: int, flat: bool, neutral: int) -> tuple[int, ...]:
    """Return `values` for all `count` dimensions, with `neutral` for an inserted height."""
    if flat:
        return (neutral, *(int(value) for value in values))
    return per_dimension([int(value) for value in values], count)


def _add_layer(
    ctx: Context,
    x: Any,
    weight: Any,
    bias: Any,
    sizes: Sequence[int],
    transposed: bool,
    groups: int,
) -> Any:
    """Add the layer, with kernel and bias as its weights where they can be, else as inputs 1 and
    2."""
    add = ctx.net.add_deconvolution_nd if transposed else ctx.net.add_convolution_nd
    maps = sizes[1] * groups if transposed else sizes[0]
    empty = ctx.trt.Weights()
    kernel = ctx.weights(weight) if _is_array(weight) else empty
    shift = ctx.weights(bias) if _is_array(bias) else empty
    layer = add(x, maps, tuple(sizes[2:]), kernel, shift)
    if not _is_array(weight):
        layer.set_input(1, ctx.tensor(weight))
    if bias is not None and not _is_array(bias):
        layer.set_input(2, ctx.tensor(bias))
    return layer


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in _ARRAY_DTYPES


def _reshape(ctx: Context, weight: Any, sizes: Sequence[int]) -> Any:
    if isinstance(weight, torch.Tensor):
        return weight.detach().reshape(tuple(sizes))
    return ctx.reshape(weight, sizes)


def _in_float32(ctx: Context, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().float()
    return None if value is None else ctx.cast(value, torch.float32)
