"""Convert a cluster, a GraphModule of converted targets, to a TensorRT network."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..engines.features import Features
from ..engines.network import Network, collect_errors, create_network
from ..errors import ConversionError
from ..graph.nodes import is_size
from ..graph.provenance import source_line
from ..graph.sizes import hint_at_most, is_static, size_range
from ..graph.specs import TensorSpec, spec_of
from ..graph.weights import attribute
from ..registry import (
    Converter,
    arguments_of,
    parameter_names,
    registered,
)
from .context import Context
from .size_carriers import (
    CARRIER_DTYPE,
    carried_size,
    engine_inputs,
)

__all__ = [
    "convert",
    "input_specs",
    "output_specs",
]

log = logging.getLogger(__name__)


def convert(cluster: GraphModule, features: Features) -> Network:
    """Build the network of `cluster`; its inputs are x0, x1, ... and its outputs y0, y1, ...

    Args:
        cluster: placeholders for tensors and for ints (sizes that the network reads off its inputs,
            `size_carriers` among them), `get_attr` for weights, ATen overloads with a converter,
            and one tuple of tensors as the output; `meta["val"]` on every node.

    Raises:
        ConversionError: a node did not become layers; names the node, its shapes, and TensorRT's
            own message.
    """
    network = create_network(features)
    network.inputs = input_specs(cluster)
    network.outputs = output_specs(cluster)
    ctx = Context(network)
    values: dict[Node, Any] = {}
    for node, spec in zip(engine_inputs(cluster), network.inputs, strict=True):
        values[node] = _add_input(ctx, node, spec)
    for node in cluster.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "get_attr":
            values[node] = attribute(cluster, node)
        elif node.op == "output":
            _mark_outputs(ctx, [values[n] for n in node.args[0]])
        elif is_size(node):
            continue
        elif node.target is operator.getitem:
            values[node] = values[node.args[0]][node.args[1]]
        else:
            values[node] = _convert_node(ctx, node, values)
    return network


def input_specs(cluster: GraphModule) -> list[TensorSpec]:
    """Return what the engine of `cluster` accepts, for each of its `engine_inputs`."""
    specs = []
    nodes = engine_inputs(cluster)
    images = _numbers_of_images([node.meta["val"] for node in nodes])
    for i, node in enumerate(nodes):
        entering = _entering(node, cluster)
        spec = spec_of(f"x{i}", entering)
        if images:
            fullest = tuple(max(1, hint_at_most(size, images)) for size in entering.shape)
            spec = replace(spec, fullest=fullest)
        carries = not isinstance(node.meta["val"], torch.Tensor)
        specs.append(_not_empty(spec) if carries else spec)
    return specs


def output_specs(cluster: GraphModule) -> list[TensorSpec]:
    """Return what `cluster` gives."""
    (results,) = cluster.graph.output_node().args
    assert isinstance(results, (tuple, list))
    return [spec_of(f"y{i}", node.meta["val"]) for i, node in enumerate(results)]


def _numbers_of_images(values: Sequence[Any]) -> set[sympy.Symbol]:
    """Return the symbols with an upper bound in the first dimensions of tensors."""
    first: list[Any] = [
        value.shape[0] for value in values if isinstance(value, torch.Tensor) and value.dim()
    ]
    varying = [size for size in first if isinstance(size, torch.SymInt) and not is_static(size)]
    bounded = [size for size in varying if size_range(size)[1] is not None]
    return {symbol for size in bounded for symbol in size.node.expr.free_symbols}


def _entering(node: Node, cluster: GraphModule) -> torch.Tensor:
    """Return the fake tensor that enters the engine for a placeholder."""
    value = node.meta["val"]
    if isinstance(value, torch.Tensor):
        return value
    like: torch.Tensor = pytree.tree_leaves(cluster.graph.output_node().args)[0].meta["val"]
    return like.new_empty((carried_size(value),), dtype=CARRIER_DTYPE)


def _not_empty(spec: TensorSpec) -> TensorSpec:
    """Restrict a carrier to sizes of 1 or more: calls with another number run in PyTorch."""
    high = tuple(None if size is None else max(1, size) for size in spec.high)
    low, optimum = (tuple(max(1, size) for size in sizes) for sizes in (spec.low, spec.optimum))
    return replace(spec, low=low, optimum=optimum, high=high)


def _add_input(ctx: Context, node: Node, spec: TensorSpec) -> Any:
    tensor = ctx.net.add_input(spec.name, ctx.features.to_trt(spec.dtype), spec.shape)
    if tensor is None:
        raise ConversionError(f"TensorRT took no input {spec.describe()} of {spec.dtype}")
    value = node.meta["val"]
    shape = value.shape if isinstance(value, torch.Tensor) else (carried_size(value),)
    ctx.shapes.add_source(tensor, shape)
    _lay_out(ctx, tensor, spec)
    return tensor


def _lay_out(ctx: Context, tensor: Any, spec: TensorSpec) -> None:
    """Let the network's input or output be channels-last if its spec is; linear is the default."""
    if spec.channels_last:
        tensor.allowed_formats = 1 << int(ctx.features.trt.TensorFormat.HWC8)


def _convert_node(ctx: Context, node: Node, values: dict[Node, Any]) -> Any:
    converter = registered()[node.target]  # type: ignore[index]  # support let it through
    first_layer = ctx.net.num_layers
    with collect_errors() as messages:
        try:
            ctx.enter(node, converter.parameters)
            result = converter.build(ctx, **_arguments(ctx, converter, node, values))
            _check_layers(ctx, node, first_layer)
            _check_result(ctx, node, result)
        except Exception as error:
            raise ConversionError(_explain(node, error, messages), node.name) from error
    return result


def _arguments(
    ctx: Context, converter: Converter, node: Node, values: dict[Node, Any]
) -> dict[str, Any]:
    """Return the converter's arguments: ITensors for nodes, weights as it asked for them."""
    names = parameter_names(converter.build)
    arguments: dict[str, Any] = {}
    for schema_name, value in arguments_of(node).items():
        name = converter.parameters[schema_name]
        if name not in names:
            continue

        def resolve(argument: Node, name: str = name) -> Any:
            fake = argument.meta["val"]
            if isinstance(fake, (torch.SymInt, int, float)):
                return fake
            known = values[argument]
            return known if name in converter.constants else ctx.tensor(known)

        arguments[name] = torch.fx.node.map_arg(value, resolve)
    return arguments


def _check_layers(ctx: Context, node: Node, first: int) -> None:
    """Read all shapes now: most of TensorRT's errors only surface when a shape is read."""
    for index in range(first, ctx.net.num_layers):
        layer = ctx.net.get_layer(index)
        if not layer.name.startswith("bfloat16 constant"):
            layer.name = f"{node.name}.{index - first}"
        for output in range(layer.num_outputs):
            _ = layer.get_output(output).shape


def _check_result(ctx: Context, node: Node, result: Any) -> None:
    """Require torch's dtype, and torch's shape as far as it is known."""
    fakes = node.meta["val"]
    single = isinstance(fakes, torch.Tensor)
    pairs = [(fakes, result)] if single else list(zip(fakes, result, strict=False))
    for fake, tensor in pairs:
        if tensor is None or fake is None:
            continue
        shape = tuple(tensor.shape)
        known = [int(size) if is_static(size) else -1 for size in fake.shape]
        agrees = len(shape) == len(known) and all(
            a == b or -1 in (a, b) for a, b in zip(shape, known, strict=True)
        )
        if not agrees:
            raise ConversionError(f"the layers give shape {shape}, torch {tuple(fake.shape)}")
        if ctx.dtype(tensor) != fake.dtype:
            raise ConversionError(f"the layers give {ctx.dtype(tensor)}, torch {fake.dtype}")


def _explain(node: Node, error: Exception, messages: Sequence[str]) -> str:
    operands = ", ".join(
        f"{n.name}: {tuple(n.meta['val'].shape)} {n.meta['val'].dtype}"
        for n in node.all_input_nodes
        if isinstance(n.meta.get("val"), torch.Tensor)
    )
    reason = "; ".join(message.strip() for message in messages) or str(error)
    where = source_line(node)
    return (
        f"{node.name} = {node.target}({operands}) did not convert: {reason}"
        + (f" [{where}]" if where else "")
        + f". Put {node.name!r} in `blacklist` to keep it in PyTorch."
    )


def _mark_outputs(ctx: Context, results: Sequence[Any]) -> None:
    """Name and mark the outputs. One that is an input, a constant or a repeat is copied first."""
    net = ctx.net
    seen = {net.get_input(i).name for i in range(net.num_inputs)}
    for index, result in enumerate(results):
        tensor = ctx.tensor(result)
        if tensor.name in seen or isinstance(result, torch.Tensor):
            tensor = net.add_identity(tensor).get_output(0)
        tensor.name = f"y{index}"
        seen.add(tensor.name)
        net.mark_output(tensor)
        _lay_out(ctx, tensor, ctx.network.outputs[index])
        if ctx.features.weakly_typed:
            ctx.settle()
            tensor.dtype = ctx.features.to_trt(ctx.network.outputs[index].dtype)
