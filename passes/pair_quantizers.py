"""Turn the quantizers of torchao and ModelOpt into fxtrt's own, one node for a pair of layers."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.aliases import erase_dead
from ..graph.fake_quantize import PER_CHANNEL, PER_TENSOR
from ..graph.int8_limits import (
    constant_scale,
    constant_value,
    int8_range,
    modelopt_limits,
    symmetric,
)
from ..graph.metadata import infer
from ..graph.weights import add_weight, weight
from ..registry import arguments_of

_PREFIX = "quantized_decomposed::"
_MODELOPT = "tensorrt::quantize_op"


def pair_quantizers(gm: GraphModule) -> bool:
    """`dequantize(quantize(x, s), s)` -> `fake_quantize(x, s)`, and the like for ModelOpt's.

    A dequantized int8 weight becomes the float weight with a quantizer, the form that all versions
    of TensorRT take. What is not symmetric int8 stays as it is, and the report says why.
    """
    changed = False
    for node in list(gm.graph.nodes):
        name = _name(node)
        if name == _MODELOPT:
            found = _of_modelopt(node)
        elif name.startswith(f"{_PREFIX}dequantize_per_"):
            found = _of_pair(gm, node)
        else:
            continue
        if found is not None:
            _replace(gm, node, *found)
            changed = True
    if changed:
        gm.graph.lint()
        gm.recompile()
    return changed


def _replace(gm: GraphModule, node: Node, x: Node, scale: torch.Tensor, axis: int | None) -> None:
    with gm.graph.inserting_before(node):
        if axis is None:
            made = gm.graph.call_function(PER_TENSOR, (x, float(scale)))
        else:
            steps = add_weight(gm, scale.float().flatten(), f"{node.name}_scale")
            made = gm.graph.call_function(PER_CHANNEL, (x, steps, axis))
    infer(made, node)
    inputs = node.all_input_nodes
    node.replace_all_uses_with(made)
    gm.graph.erase_node(node)
    erase_dead(inputs)


def _of_modelopt(node: Node) -> tuple[Node, torch.Tensor, int | None] | None:
    x, amax = list(arguments_of(node).values())[:2]
    value = constant_value(node, amax)
    if modelopt_limits(node) is not None or value is None:
        return None
    rank = node.meta["val"].dim()
    shape = (1,) * (rank - value.dim()) + tuple(value.shape)
    axis = next((i for i, size in enumerate(shape) if size > 1), None)
    return (x, value.float() / 127, axis) if rank else None


def _of_pair(gm: GraphModule, node: Node) -> tuple[Node, torch.Tensor, int | None] | None:
    """Return what a dequantize and the quantize before it round, or None if they do not fit."""
    source = node.args[0]
    assert isinstance(source, Node)
    if not _is_int8(node) or node.meta["val"].dim() == 0:
        return None
    scale = constant_value(node, _scale(node))
    axis = arguments_of(node).get("axis")
    if (steps := weight(gm, source)) is not None and scale is not None:
        along = scale.flatten()
        if axis is not None:
            along = along.reshape(
                [-1 if i == axis % steps.dim() else 1 for i in range(steps.dim())]
            )
        value = (steps.detach().float() * along).to(node.meta["val"].dtype)
        with gm.graph.inserting_before(node):
            return add_weight(gm, value, f"{source.name}_float"), scale, axis
    if not _name(source).startswith(f"{_PREFIX}quantize_per_") or not _is_int8(source):
        return None
    x, before = source.args[0], constant_value(source, _scale(source))
    assert isinstance(x, Node)
    if scale is None or before is None or not torch.equal(scale, before):
        return None
    if arguments_of(source).get("axis") != axis:
        return None
    return (x, scale, axis) if x.meta["val"].dtype == node.meta["val"].dtype else None


def _is_int8(node: Node) -> bool:
    """Return whether a quantize or a dequantize of torchao's is symmetric int8."""
    arguments = arguments_of(node)
    if arguments["dtype"] != torch.int8 or isinstance(arguments["quant_min"], Node):
        return False
    # Only a quantize clamps to the range.
    clamps = _name(node).startswith(f"{_PREFIX}quantize_per_")
    limits = constant_scale(node) or symmetric(node) or (int8_range(node) if clamps else None)
    return limits is None


def _scale(node: Node) -> Any:
    arguments = arguments_of(node)
    return arguments.get("scale", arguments.get("scales"))


def _name(node: Node) -> str:
    return node.target._schema.name if isinstance(node.target, OpOverload) else ""
