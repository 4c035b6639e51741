"""Convert roi_align, which resamples regions of a feature map, to GATHERs or a plugin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..conversion.context import Context
from ..engines.features import Features
from ..engines.plugins import add_roi_align, without_plugin
from ..graph.sizes import Size
from ..registry import converts
from .reduction import reduce


def _can(
    input: torch.Tensor, rois: torch.Tensor, sampling_ratio: int, features: Features
) -> str | None:
    if sampling_ratio <= 0 and (reason := without_plugin(features)):
        return (
            f"with sampling_ratio={sampling_ratio} each region has its own number of samples, "
            f"which needs TensorRT's plugin: {reason}. A positive sampling_ratio needs none"
        )
    if input.dtype == rois.dtype == torch.float32:
        return None
    return f"input is {input.dtype}, rois {rois.dtype}: torch rounds each step but in float32"


@dataclass(frozen=True, slots=True)
class _Samples:
    """The samples along one axis; each tensor has the shape [regions, bins * ratio].

    low, high:     the two pixels around each, as integers.
    before, after: their weights.
    inside:        whether the sample counts.
    """

    low: Any
    high: Any
    before: Any
    after: Any
    inside: Any


@converts(
    "torchvision::roi_align",
    check=_can,
    opt_in="it gathers four pixels per sample, which torchvision's kernel does without",
)
def roi_align(
    ctx: Context,
    input: Any,
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """torchvision::roi_align(Tensor input, Tensor rois, float spatial_scale,
    SymInt pooled_height, SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor"""
    if sampling_ratio <= 0:
        return _adaptive(
            ctx, input, rois, float(spatial_scale), (pooled_height, pooled_width), aligned
        )
    batch, channels, height, width = ctx.fake("input").shape
    count = ctx.fake("rois").shape[0]
    image, *corners = (ctx.slice(rois, [0, i], [count, 1]) for i in range(5))
    scale, offset = (
        ctx.scalar(value, torch.float32, 2) for value in (spatial_scale, 0.5 if aligned else 0.0)
    )
    scaled = [ctx.elementwise("PROD", corner, scale) for corner in corners]
    left, top, right, bottom = (
        [ctx.elementwise("SUB", value, offset) for value in scaled] if aligned else scaled
    )
    rows = _samples(ctx, _Span(top, bottom, height, pooled_height, sampling_ratio, aligned))
    columns = _samples(ctx, _Span(left, right, width, pooled_width, sampling_ratio, aligned))
    grid = [count, pooled_height * sampling_ratio, pooled_width * sampling_ratio]
    pixels = ctx.reshape(input, [batch * height * width, channels], (0, 2, 3, 1))
    sampled = _interpolate(ctx, pixels, image, rows, columns, grid, (height, width))
    bins = [count, pooled_height, sampling_ratio, pooled_width, sampling_ratio, channels]
    pooled = reduce(ctx, "AVG", ctx.reshape(sampled, bins), (2, 4))
    return ctx.permute(pooled, (0, 3, 1, 2))


def _adaptive(
    ctx: Context, input: Any, rois: Any, scale: float, pooled: tuple[int, int], aligned: bool
) -> Any:
    """Add the plugin, which takes about one sample per pixel: as many as fit in each region."""
    count = ctx.fake("rois").shape[0]
    corners = ctx.slice(rois, [0, 1], [count, 4])
    images = ctx.cast(ctx.reshape(ctx.slice(rois, [0, 0], [count, 1]), [count]), torch.int32)
    attributes = {
        "coordinate_transformation_mode": int(aligned),
        "mode": 1,
        "output_height": int(pooled[0]),
        "output_width": int(pooled[1]),
        "sampling_ratio": 0,
        "spatial_scale": scale,
    }
    result = add_roi_align(ctx.network, (input, corners, images), attributes)
    if not aligned:
        return result
    # A region without extent has no samples: the plugin divides by zero, torchvision by one.
    zero, factor, offset = (ctx.scalar(v, torch.float32, 2) for v in (0.0, scale, 0.5))
    places = ctx.elementwise("SUB", ctx.elementwise("PROD", corners, factor), offset)
    starts, ends = (ctx.slice(places, [0, i], [count, 2]) for i in (0, 2))
    extents = ctx.elementwise("SUB", ends, starts)
    has = [ctx.slice(ctx.elementwise("GREATER", extents, zero), [0, i], [count, 1]) for i in (0, 1)]
    sampled = ctx.reshape(ctx.elementwise("AND", *has), [count, 1, 1, 1])
    empty = ctx.scalar(0.0, torch.float32, 4)
    return ctx.net.add_select(sampled, result, empty).get_output(0)


@dataclass(frozen=True, slots=True)
class _Span:
    """The regions along one axis of `size` pixels: from `start` to `end`, both [regions, 1]."""

    start: Any
    end: Any
    size: Size
    bins: int
    ratio: int
    aligned: bool


def _samples(ctx: Context, span: _Span) -> _Samples:
    # The order of operations is torchvision's: one rounding decides whether a sample on the border
    # counts.
    extent = ctx.elementwise("SUB", span.end, span.start)
    if not span.aligned:
        extent = ctx.elementwise("MAX", extent, ctx.scalar(1.0, torch.float32, 2))
    size = ctx.elementwise("DIV", extent, ctx.scalar(float(span.bins), torch.float32, 2))
    bins = [[float(b) for b in range(span.bins) for _ in range(span.ratio)]]
    steps = [[i + 0.5 for _ in range(span.bins) for i in range(span.ratio)]]
    corner = ctx.elementwise("PROD", ctx.constant(bins, torch.float32), size)
    corner = ctx.elementwise("SUM", span.start, corner)
    step = ctx.elementwise("PROD", ctx.constant(steps, torch.float32), size)
    step = ctx.elementwise("DIV", step, ctx.scalar(float(span.ratio), torch.float32, 2))
    return _around(ctx, ctx.elementwise("SUM", corner, step), span.size)


def _around(ctx: Context, position: Any, size: Size) -> _Samples:
    """Return the pixels around each position. A position less than a pixel outside moves to the
    edge."""
    zero, one, limit = ctx.operands(0, 1, size, dtype=torch.float32, rank=2)
    (minus_one,) = ctx.operands(-1, dtype=torch.float32, rank=2)
    below = ctx.elementwise("LESS", position, minus_one)
    above = ctx.elementwise("GREATER", position, limit)
    inside = ctx.unary("NOT", ctx.elementwise("OR", below, above))
    last = ctx.elementwise("SUB", limit, one)
    position = ctx.elementwise("MIN", ctx.elementwise("MAX", position, zero), last)
    low = ctx.unary("FLOOR", position)
    high = ctx.elementwise("MIN", ctx.elementwise("SUM", low, one), last)
    after = ctx.elementwise("SUB", position, low)
    before = ctx.elementwise("SUB", one, after)
    dtype = ctx.features.shape_dtype
    return _Samples(ctx.cast(low, dtype), ctx.cast(high, dtype), before, after, inside)


def _interpolate(
    ctx: Context,
    pixels: Any,
    image: Any,
    rows: _Samples,
    columns: _Samples,
    grid: list[Size],
    sizes: tuple[Size, Size],
) -> Any:
    """Return the value of every sample, [*grid, channels].

    `pixels` is [images * rows * columns, channels].
    """
    count, down, across = grid
    dtype = ctx.features.shape_dtype
    height, width = ctx.operands(*sizes, dtype=dtype, rank=2)
    first = ctx.elementwise("PROD", ctx.cast(image, dtype), height)

    def along_rows(tensor: Any) -> Any:
        return ctx.reshape(tensor, [count, down, 1])

    def along_columns(tensor: Any) -> Any:
        return ctx.reshape(tensor, [count, 1, across])

    total = None
    for row, row_weight in ((rows.low, rows.before), (rows.high, rows.after)):
        start = ctx.elementwise("PROD", ctx.elementwise("SUM", first, row), width)
        for column, weight in ((columns.low, columns.before), (columns.high, columns.after)):
            index = ctx.elementwise("SUM", along_rows(start), along_columns(column))
            picked = ctx.net.add_gather(pixels, index, 0).get_output(0)
            both = ctx.elementwise("PROD", along_rows(row_weight), along_columns(weight))
            term = ctx.elementwise("PROD", ctx.reshape(both, [*grid, 1]), picked)
            total = term if total is None else ctx.elementwise("SUM", total, term)
    inside = ctx.elementwise("AND", along_rows(rows.inside), along_columns(columns.inside))
    zero = ctx.scalar(0.0, torch.float32, 4)
    return ctx.net.add_select(ctx.reshape(inside, [*grid, 1]), total, zero).get_output(0)
