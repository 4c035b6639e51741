"""Convert pooling with fixed windows to one POOLING layer with torch's windows at every border."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from ..conversion.checks import first_output_only, is_floating
from ..conversion.context import Context
from ..conversion.opmath import wide
from ..graph.sizes import Size, is_static
from ..registry import converts
from .convolution import per_dimension

aten = torch.ops.aten

_MAX_POOLS: dict[Any, int] = {
    aten.max_pool1d.default: 1,
    aten.max_pool2d.default: 2,
    aten.max_pool3d.default: 3,
}
_MAX_POOLS_WITH_INDICES: dict[Any, int] = {
    aten.max_pool2d_with_indices.default: 2,
    aten.max_pool3d_with_indices.default: 3,
}
_AVERAGE_POOLS: dict[Any, int] = {
    aten.avg_pool1d.default: 1,
    aten.avg_pool2d.default: 2,
    aten.avg_pool3d.default: 3,
}
_SPATIAL_DIMS = _MAX_POOLS | _MAX_POOLS_WITH_INDICES | _AVERAGE_POOLS
"""The number of trailing dimensions that each operator pools over."""


@dataclass(frozen=True)
class Windows:
    """The windows of a pooling: kernel, stride and padding of each spatial dimension.

    after: the padding behind the input that gives torch's number of windows when rounding down.
           It is None if it depends on a dynamic size; then rounding up gives that number.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    after: tuple[int, ...] | None

    @property
    def overshoots(self) -> bool:
        """Return whether a window may extend beyond the padding, as it may with `ceil_mode`."""
        return self.after is None or any(
            after > pad for after, pad in zip(self.after, self.padding, strict=True)
        )


def _windows(
    sizes: Sequence[Size],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
) -> Windows:
    count = len(sizes)
    kernel = per_dimension(kernel_size, count)
    step = per_dimension(stride, count) if stride else kernel
    pad = per_dimension(padding, count)
    if not ceil_mode:
        return Windows(kernel, step, pad, pad)
    if not all(is_static(size) for size in sizes):
        return Windows(kernel, step, pad, None)
    known = [int(size) for size in sizes]
    after = tuple(map(_padding_behind, known, kernel, step, pad))
    return Windows(kernel, step, pad, after)


def _padding_behind(size: int, kernel: int, stride: int, padding: int) -> int:
    """Return the padding after the input that completes the last window of `ceil_mode`."""
    last = -(-(size + 2 * padding - kernel) // stride)
    # torch leaves out a window that starts beyond the input and the padding before it.
    if last * stride >= size + padding:
        last -= 1
    return max(padding, last * stride + kernel - size - padding)


def spatial_sizes(x: torch.Tensor, count: int) -> list[Size]:
    """Return the last `count` sizes."""
    return list(x.shape[x.dim() - count :])


def _undilated(dilation: Sequence[int]) -> str | None:
    return f"dilation is {tuple(dilation)}" if any(step != 1 for step in dilation) else None


def _windows_known(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    node: Node,
) -> str | None:
    """Decline where torch may drop a last window that rounding up keeps.

    It keeps a window that starts within the input.
    """
    sizes = spatial_sizes(x, _SPATIAL_DIMS[node.target])
    windows = _windows(sizes, kernel_size, stride, padding, ceil_mode)
    if windows.after is not None:
        return None
    dimensions = zip(windows.kernel, windows.stride, windows.padding, strict=True)
    if all(pad + stride <= kernel for kernel, stride, pad in dimensions):
        return None
    return (
        f"ceil_mode=True with kernel {windows.kernel}, stride {windows.stride} and padding "
        f"{windows.padding} drops windows at some of the dynamic sizes"
    )


def add_pooling(
    ctx: Context,
    x: Any,
    kind: str,
    windows: Windows,
    count_padding: bool = False,
) -> Any:
    """Add a POOLING over the last dimensions of `x`, which may lack a batch; averages are
    float32."""
    count = len(windows.kernel)
    dtype = ctx.dtype(x)
    x = ctx.cast(x, wide(dtype)) if kind == "AVERAGE" else x
    flat = count == 1
    missing: list[int] = []
    if len(x.shape) == count + 1:
        missing.append(0)  # the batch
    if flat:
        missing.append(2)  # the height of a line
    x = _insert(ctx, x, missing) if missing else x
    pooling = getattr(ctx.trt.PoolingType, kind)
    layer = ctx.net.add_pooling_nd(x, pooling, _with_height(windows.kernel, flat, 1))
    layer.stride_nd = _with_height(windows.stride, flat, 1)
    layer.pre_padding = _with_height(windows.padding, flat, 0)
    layer.post_padding = _with_height(windows.after or windows.padding, flat, 0)
    if windows.after is None:
        layer.padding_mode = ctx.trt.PaddingMode.EXPLICIT_ROUND_UP
    if kind == "AVERAGE":
        layer.average_count_excludes_padding = not count_padding
    y = ctx.cast(layer.get_output(0), dtype)
    return _remove(ctx, y, missing) if missing else y


def _with_height(values: tuple[int, ...], flat: bool, neutral: int) -> tuple[int, ...]:
    return (neutral, *values) if flat else values


def _insert(ctx: Context, x: Any, dims: Sequence[int]) -> Any:
    """Insert dimensions of size 1 at `dims` of the result, whichever sizes are dynamic."""
    rank = len(x.shape)
    layer = ctx.net.add_shuffle(x)
    # Zeros copy the input's sizes. The new dimensions come last, then go to their places.
    layer.reshape_dims = (*(0,) * rank, *(1,) * len(dims))
    order = list(range(rank))
    for number, dim in enumerate(dims):
        order.insert(dim, rank + number)
    layer.second_transpose = tuple(order)
    return layer.get_output(0)


def _remove(ctx: Context, x: Any, dims: Sequence[int]) -> Any:
    """Remove `dims`, which have size 1, from `x`."""
    kept = [dim for dim in range(len(x.shape)) if dim not in dims]
    layer = ctx.net.add_shuffle(x)
    if kept[:-1] != list(range(len(kept) - 1)):
        layer.first_transpose = (*kept, *dims)
    layer.reshape_dims = (*(0,) * (len(kept) - 1), -1)
    return layer.get_output(0)


_MAX_CHECKS = (is_floating, _undilated, _windows_known)


@converts(*_MAX_POOLS, check=_MAX_CHECKS)
def max_pool(
    ctx: Context,
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
) -> Any:
    """max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0,
    int[2] dilation=1, bool ceil_mode=False) -> Tensor"""
    sizes = spatial_sizes(ctx.fake("x"), _SPATIAL_DIMS[ctx.target])
    return add_pooling(ctx, x, "MAX", _windows(sizes, kernel_size, stride, padding, ceil_mode))


@converts(*_MAX_POOLS_WITH_INDICES, check=(*_MAX_CHECKS, first_output_only))
def max_pool_with_indices(
    ctx: Context,
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
) -> tuple[Any, None]:
    """max_pool2d_with_indices(Tensor self, int[2] kernel_size, ...) -> (Tensor, Tensor)"""
    return max_pool(ctx, x, kernel_size, stride, padding, ceil_mode), None


def _padding_uncounted(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    node: Node,
) -> str | None:
    """Decline if torch counts the padding, but not elements of a window beyond the padding."""
    sizes = spatial_sizes(x, _SPATIAL_DIMS[node.target])
    windows = _windows(sizes, kernel_size, stride, padding, ceil_mode)
    if count_include_pad and any(windows.padding) and windows.overshoots:
        return (
            f"count_include_pad=True with ceil_mode=True counts the padding {windows.padding} "
            f"but not what a window has behind it"
        )
    return None


def _known_divisor(
    x: torch.Tensor, ceil_mode: bool, node: Node, divisor_override: int | None = None
) -> str | None:
    known = all(is_static(size) for size in spatial_sizes(x, _SPATIAL_DIMS[node.target]))
    if divisor_override is None or not ceil_mode or known:
        return None
    return f"divisor_override={divisor_override} with ceil_mode=True and dynamic sizes"


@converts(*_AVERAGE_POOLS, check=(is_floating, _windows_known, _padding_uncounted, _known_divisor))
def avg_pool(
    ctx: Context,
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Any:
    """avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0,
    bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor

    avg_pool1d has no `divisor_override`.
    """
    sizes = spatial_sizes(ctx.fake("x"), _SPATIAL_DIMS[ctx.target])
    windows = _windows(sizes, kernel_size, stride, padding, ceil_mode)
    return _average_pool(ctx, x, windows, count_include_pad, divisor_override)


def _average_pool(
    ctx: Context,
    x: Any,
    windows: Windows,
    count_include_pad: bool,
    divisor_override: int | None = None,
) -> Any:
    if divisor_override is None:
        # Without padding both counts agree, except for what a window has behind the input.
        counted = count_include_pad and any(windows.padding)
        return add_pooling(ctx, x, "AVERAGE", windows, counted)
    dtype = ctx.dtype(x)
    wide = ctx.cast(x, torch.float32)
    mean = add_pooling(ctx, wide, "AVERAGE", windows, count_padding=True)
    factor = math.prod(windows.kernel) / divisor_override
    y = ctx.elementwise("PROD", *ctx.operands(mean, factor, dtype=torch.float32))
    return ctx.cast(y, dtype)
