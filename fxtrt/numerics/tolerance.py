"""Turns a graph and the precision of its engine into the tolerance of each of its outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

from ..graph.fake_quantize import PER_CHANNEL, PER_TENSOR
from ..graph.flops import flops
from ..graph.nodes import is_size
from ..graph.sizes import hint
from ..registry import is_view

__all__ = ["PEAK", "accumulated_errors", "is_decision", "magnitude", "own_error", "tolerances"]

aten = torch.ops.aten

PEAK = 8.0
"""The tolerance in standard errors. Of a hundred million numbers with normally distributed errors,
the largest is 6 standard errors off; the rest is for kernels that add up in another order."""
_LARGEST_RATIO = 1e3
"""Numbers above this many medians do not count for the magnitude of an output, and no part of an
output has a magnitude that is that much smaller than the whole's."""
_FEWEST_IN_A_GROUP = 64
_MOST_IN_A_SAMPLE = 1 << 16
_LARGEST = 1e18
"""Its square is a float32."""

_UNITS: Mapping[torch.dtype, float] = MappingProxyType(
    {
        torch.float64: 2.0**-53,
        torch.float32: 2.0**-24,
        torch.float16: 2.0**-11,
        torch.bfloat16: 2.0**-8,
    }
)
"""The largest relative error of rounding once."""
_TF32 = 2.0**-11
_ACCUMULATOR = _UNITS[torch.float32]

_EXACT = {
    *(aten.relu, aten.relu6, aten.hardtanh, aten.clamp, aten.clamp_min, aten.clamp_max, aten.where),
    *(aten.maximum, aten.minimum, aten.abs, aten.neg, aten.sign, aten.amax, aten.amin, aten.topk),
    *(aten.sort, aten.max, aten.min, aten.cat, aten.stack, aten.clone, aten.constant_pad_nd),
    *(aten.pad, aten.index, aten.index_select, aten.gather, aten.masked_fill, aten.scatter),
    *(aten.slice_scatter, aten.select_scatter, aten.index_put, aten.flip, aten.roll, aten.repeat),
    *(aten.max_pool1d, aten.max_pool2d, aten.max_pool2d_with_indices, aten.max_pool3d, aten.full),
    *(aten.reshape, aten.flatten, aten.contiguous, aten.embedding, aten._unsafe_view, aten.tril),
    *(aten.triu, aten.arange, aten.zeros, aten.ones, aten.full_like, aten.zeros_like, aten.floor),
    *(aten.ceil, aten.round, aten.trunc, aten.upsample_nearest2d, aten.pixel_shuffle),
    *(PER_TENSOR.overloadpacket, PER_CHANNEL.overloadpacket),
}
"""Operators that pick numbers, or change them without rounding."""
_SAMPLING = ("linear1d", "linear2d", "linear3d", "cubic2d", "grid_sampler", "roi_align", "deform")
"""Parts of the names of operators that read between pixels. The error of a position is that of the
largest position, and the result follows it."""
_FEWEST_TERMS = 16
"""What an operator that is not pointwise adds up at least: norms, scans and distances do so more
than once."""
_STEPS = {
    *(aten.floor, aten.ceil, aten.round, aten.trunc, aten.frac, aten.sign, aten.sgn, aten.fmod),
    *(aten.remainder, aten.floor_divide, aten.grid_sampler, aten.grid_sampler_2d, aten.heaviside),
    *(PER_TENSOR.overloadpacket, PER_CHANNEL.overloadpacket),
}
"""Operators from floats to floats that jump, so that a rounding error can become a large one."""


def tolerances(graph: Graph, precision: str) -> list[float]:
    """Return the relative tolerance of each output of `graph`, whose nodes have fake values.

    Each operator adds the square of its relative error to that of its operands, since errors of
    rounding are independent of each other. A product or a sum of K terms has K of them, in float32.

    Args:
        graph: the graph that the engine was made of, with the casts of its precision.
        precision: `Settings.precision`; only "tf32" changes what the dtypes say.
    """
    errors = accumulated_errors(graph, precision)
    outputs = graph.output_node().all_input_nodes
    by_node = {node: PEAK * max(errors[node], _unit(node)) for node in outputs}
    results = pytree.tree_leaves(graph.output_node().args)
    return [by_node[node] for node in results if isinstance(node, Node)]


def accumulated_errors(graph: Graph, precision: str) -> dict[Node, float]:
    """Return the relative standard error of each node, with those of what it is computed from."""
    squares: dict[Node, float] = {}
    for node in graph.nodes:
        before = max((squares[source] for source in node.all_input_nodes), default=0.0)
        squares[node] = before + own_error(node, precision) ** 2
    return {node: math.sqrt(square) for node, square in squares.items()}


def own_error(node: Node, precision: str) -> float:
    """Return the relative standard error that a call adds to those of its operands."""
    if not isinstance(node.target, OpOverload) or is_size(node) or is_view(node.target):
        return 0.0
    if node.target.overloadpacket in _EXACT:
        return 0.0
    rounded = _unit(node) ** 2
    if not rounded or torch.Tag.pointwise in node.target.tags:
        return math.sqrt(rounded)
    count = max(_FEWEST_TERMS, _additions(node))
    operands = max((_unit(source) for source in node.all_input_nodes), default=0.0)
    if precision == "tf32" and flops(node):
        operands = _TF32
    places = _largest_position(node) * operands
    return math.sqrt(rounded + 2 * operands**2 + count * _ACCUMULATOR**2 + places**2)


def is_decision(node: Node) -> bool:
    """Return whether a small change of its floats can change the result of a call by a step.

    Such are comparisons, casts to integers, `floor`, and all that gives indices.
    """
    if not isinstance(node.target, OpOverload) or is_size(node):
        return False
    if not any(_floats(source) for source in node.all_input_nodes):
        return False
    if node.target.overloadpacket in _STEPS:
        return True
    return any(not tensor.is_floating_point() for tensor in _tensors(node))


def magnitude(value: torch.Tensor) -> torch.Tensor:
    """Return the size of the numbers around each element of `value`, in float32.

    It is the root of the mean square of the output, or of a part of it (a channel, a column, an
    image) where that is smaller, so that scores between 0 and 1 beside boxes of hundreds of pixels
    have a tolerance of their own. Fill values such as -1e9 do not count.
    """
    flat = value.detach().float().abs().nan_to_num(0.0, 0.0, 0.0)
    flat = flat.clamp(max=min(_LARGEST, _LARGEST_RATIO * _median(flat)))
    squares = flat.square()
    whole = squares.mean().sqrt()
    smallest = whole.expand(flat.shape) if flat.dim() else whole
    for dim, size in enumerate(flat.shape):
        if size > 1 and flat.numel() // size >= _FEWEST_IN_A_GROUP:
            others = [other for other in range(flat.dim()) if other != dim]
            smallest = torch.minimum(smallest, squares.mean(others, keepdim=True).sqrt())
    return torch.maximum(smallest, whole / _LARGEST_RATIO)


def _median(values: torch.Tensor) -> float:
    """Return the median of what is not zero, or of a sample of it."""
    flat = values.flatten()
    # An odd step does not meet the same column again and again.
    sample = flat[:: (flat.numel() // _MOST_IN_A_SAMPLE) | 1]
    there = sample[sample > 0]
    return float(there.median()) if there.numel() else _LARGEST


def _additions(node: Node) -> int:
    """Return how many numbers each element of the result is a sum of, at the example's sizes."""
    size = max(1, *map(_numel, _floats(node)))
    operands = [tensor for source in node.all_input_nodes for tensor in _floats(source)]
    read = max(map(_numel, operands), default=0)
    return max(flops(node) // (2 * size), read // size)


def _largest_position(node: Node) -> int:
    """Return the largest size of an image that a call samples or makes, or 0."""
    if not any(part in str(node.target) for part in _SAMPLING):
        return 0
    images = [tensor for one in (node, *node.all_input_nodes) for tensor in _floats(one)]
    return max((hint(size) for image in images for size in image.shape[2:]), default=0)


def _unit(node: Node) -> float:
    return max((_UNITS.get(t.dtype, 0.0) for t in _floats(node)), default=0.0)


def _floats(node: Node) -> list[torch.Tensor]:
    return [tensor for tensor in _tensors(node) if tensor.is_floating_point()]


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    leaves: list[Any] = pytree.tree_leaves(node.meta.get("val"))
    return (leaf for leaf in leaves if isinstance(leaf, torch.Tensor))


def _numel(tensor: torch.Tensor) -> int:
    return math.prod(map(hint, tensor.shape))
