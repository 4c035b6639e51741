"""Execute layers that slide a window over an image: CONVOLUTION, DECONVOLUTION and POOLING."""

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

_CONV: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL: dict[int, Callable[..., Tensor]] = {2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL: dict[int, Callable[..., Tensor]] = {2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Window:
    """The extent, stride and padding of a window along each spatial axis.

    extent: the elements from the first to the last that a window reads, those between included.
    pre:    the padding before the first element; the modes SAME_* do not use it.
    post:   the padding after the last element, likewise.
    mode:   the name of a `trt.PaddingMode`.
    """

    extent: tuple[int, ...]
    stride: tuple[int, ...]
    pre: tuple[int, ...]
    post: tuple[int, ...]
    mode: str

    @staticmethod
    def read(layer: Layer, size: Sequence[int], dilation: Sequence[int]) -> Window:
        """Return the window of `size` elements that lie `dilation` apart."""
        raw = layer.raw
        return Window(
            tuple(d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)),
            tuple(raw.stride_nd),
            tuple(raw.pre_padding),
            tuple(raw.post_padding),
            raw.padding_mode.name,
        )

    def padding(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Return the numbers of elements (before, after) that pad an image of `sizes`."""
        if not self.mode.startswith("SAME"):
            return list(zip(self.pre, self.post, strict=True))
        return [
            self._same(max((-(-size // stride) - 1) * stride + extent - size, 0))
            for size, extent, stride in zip(sizes, self.extent, self.stride, strict=True)
        ]

    def padding_of_transposed(self) -> list[tuple[int, int]]:
        """Return the numbers of elements (before, after) that a deconvolution cuts off."""
        if not self.mode.startswith("SAME"):
            return list(zip(self.pre, self.post, strict=True))
        return [self._same(max(e - s, 0)) for e, s in zip(self.extent, self.stride, strict=True)]

    def overhang(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Return the padding that EXPLICIT_ROUND_UP adds to padded `sizes` for the last window."""
        if self.mode != "EXPLICIT_ROUND_UP":
            return [(0, 0)] * len(sizes)
        return [
            (0, (extent - size) % stride)
            for size, extent, stride in zip(sizes, self.extent, self.stride, strict=True)
        ]

    def _same(self, total: int) -> tuple[int, int]:
        less, more = total // 2, total - total // 2
        return (less, more) if self.mode == "SAME_UPPER" else (more, less)


@layer("CONVOLUTION", "IConvolutionLayer")
def convolution(layer: Layer) -> Compute:
    raw = layer.raw
    size, dilation, groups = tuple(raw.kernel_size_nd), tuple(raw.dilation_nd), raw.num_groups
    window = Window.read(layer, size, dilation)
    channels = layer.raw.get_input(0).shape[1]
    layer.bind_weights(1, raw.kernel, (raw.num_output_maps, channels // groups, *size))
    layer.bind_weights(2, raw.bias, (raw.num_output_maps,))
    convolve = _CONV[len(size)]

    def compute(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        padding = window.padding(x.shape[2:])
        padded = _padded_sizes(x.shape[2:], padding)
        padding = _sum(padding, window.overhang(padded))
        symmetric = tuple(before for before, after in padding if before == after)
        if len(symmetric) == len(padding):
            return convolve(x, kernel, bias, window.stride, symmetric, dilation, groups)
        return convolve(_pad(x, padding), kernel, bias, window.stride, 0, dilation, groups)

    return compute


@layer("DECONVOLUTION", "IDeconvolutionLayer")
def deconvolution(layer: Layer) -> Compute:
    raw = layer.raw
    size, dilation, groups = tuple(raw.kernel_size_nd), tuple(raw.dilation_nd), raw.num_groups
    window = Window.read(layer, size, dilation)
    channels = layer.raw.get_input(0).shape[1]
    layer.bind_weights(1, raw.kernel, (channels, raw.num_output_maps // groups, *size))
    layer.bind_weights(2, raw.bias, (raw.num_output_maps,))
    convolve = _TRANSPOSED[len(size)]

    def compute(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
        whole = convolve(x, kernel, None, window.stride, 0, 0, groups, dilation)
        cut = [(-before, -after) for before, after in window.padding_of_transposed()]
        result = _pad(whole, cut)
        return result if bias is None else result + bias.reshape(1, -1, *[1] * len(size))

    return compute


@layer("POOLING", "IPoolingLayer")
def pooling(layer: Layer) -> Compute:
    raw = layer.raw
    size = tuple(raw.window_size_nd)
    window = Window.read(layer, size, [1] * len(size))
    kind, excludes = raw.type.name, raw.average_count_excludes_padding
    blend = raw.blend_factor

    def maximum(x: Tensor) -> Tensor:
        padding = window.padding(x.shape[2:])
        padding = _sum(padding, window.overhang(_padded_sizes(x.shape[2:], padding)))
        lowest = -torch.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        return _MAX_POOL[len(size)](_pad(x, padding, lowest), size, window.stride)

    def average(x: Tensor) -> Tensor:
        padding = window.padding(x.shape[2:])
        overhang = window.overhang(_padded_sizes(x.shape[2:], padding))
        ones = torch.ones((1, 1, *x.shape[2:]), device=x.device)
        counted = _pad(_pad(ones, padding, 0.0 if excludes else 1.0), overhang)
        totals = _window_sum(_pad(x.float(), _sum(padding, overhang)), size, window.stride)
        return (totals / _window_sum(counted, size, window.stride)).to(x.dtype)

    def compute(x: Tensor) -> Tensor:
        if kind == "MAX":
            return maximum(x)
        if kind == "AVERAGE":
            return average(x)
        return torch.lerp(maximum(x), average(x), blend)

    return compute


def _window_sum(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return _AVG_POOL[len(size)](x, size, stride, divisor_override=1)


def _pad(x: Tensor, padding: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the last axes of `x` by (before, after) elements; negative numbers crop."""
    flat = [count for pair in reversed(padding) for count in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def _padded_sizes(sizes: Sequence[int], padding: Sequence[tuple[int, int]]) -> list[int]:
    return [size + before + after for size, (before, after) in zip(sizes, padding, strict=True)]


def _sum(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(x + u, y + v) for (x, y), (u, v) in zip(a, b, strict=True)]
