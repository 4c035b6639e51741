"""Convert deformable convolution: GRID_SAMPLE reads shifted taps, a product applies the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..conversion.checks import has_layer
from ..conversion.context import Context
from ..graph.sizes import Size, is_static
from ..registry import converts
from .creation import linspace

_DTYPE = torch.float32


def _in_float32(
    input: torch.Tensor,
    weight: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    bias: torch.Tensor,
) -> str | None:
    for tensor in (input, weight, offset, mask, bias):
        if tensor.dtype != _DTYPE:
            return f"a tensor is {tensor.dtype}: places between pixels need {_DTYPE}"
    return None


def _known(
    weight: torch.Tensor,
    stride_h: Size,
    stride_w: Size,
    pad_h: Size,
    pad_w: Size,
    dilation_h: Size,
    dilation_w: Size,
    groups: Size,
    offset_groups: Size,
) -> str | None:
    steps = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups)
    dynamic = [size for size in (*weight.shape[2:], *steps) if not is_static(size)]
    return f"a kernel size or step is dynamic: {dynamic[0]}" if dynamic else None


@dataclass(frozen=True, slots=True)
class _Axis:
    """The position of the kernel along rows (0) or columns (1) of the input, before the shift.

    size:  the size of the input.
    count: the size of the output.
    taps:  the distance of each tap of the kernel from its first one, row by row.
    """

    index: int
    size: Size
    count: Size
    stride: int
    padding: int
    taps: list[int]


@converts(
    "torchvision::deform_conv2d",
    check=(has_layer("add_grid_sample"), _in_float32, _known),
    constants=("weight", "bias"),
)
def deform_conv2d(
    ctx: Context,
    input: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Any:
    """torchvision::deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask,
    Tensor bias, SymInt stride_h, ..., SymInt groups, SymInt offset_groups, bool use_mask)"""
    height, width = ctx.fake("input").shape[2:]
    kernel = [int(size) for size in ctx.fake("weight").shape[2:]]
    down, across = ctx.output.shape[2:]
    taps = [(i * int(dilation_h), j * int(dilation_w)) for i, j in _places(kernel)]
    rows = _Axis(0, height, down, int(stride_h), int(pad_h), [tap for tap, _ in taps])
    columns = _Axis(1, width, across, int(stride_w), int(pad_w), [tap for _, tap in taps])
    sampled = _sample(ctx, input, offset, (rows, columns), int(offset_groups))
    if use_mask:
        batches = ctx.fake("input").shape[0] * int(offset_groups)
        factors = ctx.reshape(mask, [batches, 1, len(taps) * down, across])
        sampled = ctx.elementwise("PROD", sampled, factors)
    return _multiply(ctx, sampled, weight, bias, int(groups))


def _places(kernel: list[int]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(kernel[0]) for j in range(kernel[1])]


def _sample(
    ctx: Context, input: Any, offset: Any, axes: tuple[_Axis, _Axis], offset_groups: int
) -> Any:
    """Sample the input at each tap.

    The result is [batch * offset groups, channels of each group, taps * rows, columns].
    """
    rows, columns = axes
    batch, channels, height, width = ctx.fake("input").shape
    batches, count = batch * offset_groups, len(rows.taps)
    shifts = ctx.reshape(offset, [batches, count, 2, rows.count, columns.count])
    # The layer takes columns before rows.
    both = [_coordinate(ctx, shifts, axis, batches) for axis in (columns, rows)]
    layer = ctx.net.add_concatenation(both)
    layer.axis = 2
    sizes = [batches, count * rows.count, columns.count, 2]
    grid = ctx.reshape(layer.get_output(0), sizes, (0, 1, 3, 4, 2))
    if offset_groups > 1:
        input = ctx.reshape(input, [batches, channels // offset_groups, height, width])
    sampling = ctx.net.add_grid_sample(input, grid)
    sampling.interpolation_mode = ctx.trt.InterpolationMode.LINEAR
    sampling.sample_mode = ctx.trt.SampleMode.FILL
    sampling.align_corners = False
    return sampling.get_output(0)


def _coordinate(ctx: Context, shifts: Any, axis: _Axis, batches: Size) -> Any:
    """Return the positions along one axis in the layer's units, which reach from -1 to 1.

    That is centre / (size / 2) - 1, where the first pixel's centre is 0.5. The result is
    [batch * offset groups, taps, 1, rows, columns].
    """
    count, (down, across) = len(axis.taps), ctx.output.shape[2:]
    shift = ctx.slice(shifts, [0, 0, axis.index, 0, 0], [batches, count, 1, down, across])
    place = ctx.elementwise("SUM", shift, _unshifted(ctx, axis))
    if is_static(axis.size):
        extent = ctx.scalar(int(axis.size) / 2, _DTYPE, 5)
    else:
        size, half = ctx.operands(axis.size, 0.5, dtype=_DTYPE, rank=5)
        extent = ctx.elementwise("PROD", size, half)
    scaled = ctx.elementwise("DIV", place, extent)
    return ctx.elementwise("SUB", scaled, ctx.scalar(1.0, _DTYPE, 5))


def _unshifted(ctx: Context, axis: _Axis) -> Any:
    """Return the pixel centres that an ordinary convolution reads along one axis.

    The result is [1, taps, 1, rows, 1] or [1, taps, 1, 1, columns].
    """
    start = 0.5 - axis.padding
    shape: list[Size] = [1, 1, 1, 1, 1]
    shape[3 + axis.index] = axis.count
    taps = torch.tensor(axis.taps, dtype=_DTYPE).reshape(1, -1, 1, 1, 1)
    if is_static(axis.count):
        steps = torch.arange(int(axis.count), dtype=_DTYPE) * axis.stride + start
        return ctx.tensor(taps + steps.reshape([int(size) for size in shape]))
    steps = ctx.reshape(linspace(ctx, axis.count, _DTYPE, start, axis.stride), shape)
    return ctx.elementwise("SUM", ctx.tensor(taps), steps)


def _multiply(ctx: Context, sampled: Any, weight: Any, bias: Any, groups: int) -> Any:
    """Multiply the kernel, one matrix for each group of channels, by the samples as columns."""
    batch, out_channels, down, across = ctx.output.shape
    _, of_group, *kernel = ctx.fake("weight").shape
    inner = of_group * int(kernel[0]) * int(kernel[1])
    sizes = [1, groups, out_channels // groups, inner]
    if isinstance(weight, torch.Tensor):
        matrix = ctx.tensor(weight.detach().reshape([int(size) for size in sizes]))
    else:
        matrix = ctx.reshape(weight, sizes)
    columns = ctx.reshape(sampled, [batch, groups, inner, down * across])
    plain = ctx.trt.MatrixOperation.NONE
    product = ctx.net.add_matrix_multiply(matrix, plain, columns, plain).get_output(0)
    result = ctx.reshape(product, [batch, out_channels, down, across])
    if isinstance(bias, torch.Tensor):
        shift = ctx.tensor(bias.detach().reshape(1, -1, 1, 1))
    else:
        shift = ctx.reshape(bias, [1, out_channels, 1, 1])
    return ctx.elementwise("SUM", result, shift)
