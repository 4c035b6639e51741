"""Decides whether an engine could run a node, and gives the reason if not."""

from __future__ import annotations

import operator
from collections.abc import Sequence, Set
from typing import Any

import sympy
import torch
from torch._ops import OpOverload
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import (
    GuardOnDataDependentSymNode,
    free_unbacked_symbols,
)

from ..engines.base import EngineBackend
from ..engines.known_bad import why_known_bad
from ..graph.sizes import (
    Size,
    input_sizes,
    is_static,
    is_unbacked,
    size_range,
)
from ..registry import (
    Converter,
    Rejection,
    arguments_of,
    explanation,
    registered,
)
from .data_dependent import data_dependent

__all__ = [
    "support",
]

_MAX_RANK = 8


def support(
    node: Node,
    backend: EngineBackend,
    *,
    whitelisted: bool = False,
    sizes: Set[sympy.Symbol] | None = None,
) -> Rejection | None:
    """Return why `node`, a call, stays in PyTorch whatever surrounds it, or None.

    Nothing is built: the answer depends on `meta["val"]` of the node and of its arguments.

    Args:
        whitelisted: whether `Settings.whitelist` names the node, which an opt-in converter and a
            kernel that is known to be wrong need.
        sizes: the `input_sizes` of the graph, which are computed if they are not given.
    """
    if node.target is operator.getitem:
        producer = node.args[0]
        assert isinstance(producer, Node)
        return support(producer, backend, whitelisted=whitelisted, sizes=sizes)
    if not isinstance(node.target, OpOverload) or node.target not in registered():
        why = explanation(node.target) if isinstance(node.target, OpOverload) else ""
        return Rejection("no_converter", f"{node.target} has no converter{why and f': {why}'}")
    converter = registered()[node.target]
    if converter.opt_in and not whitelisted:
        detail = f"{node.target} converts only if `whitelist` names it: {converter.opt_in}"
        return Rejection("opt_in", detail)
    if not whitelisted and (rejection := _known_bad(node, backend)):
        return rejection
    for value in (*_tensors_in(node), *_tensors_out(node)):
        if rejection := _tensor_limits(value, backend, converter):
            return rejection
    arguments = {
        name: torch.fx.node.map_arg(value, lambda n: n.meta["val"])
        for name, value in arguments_of(node).items()
    }
    leaves = torch.utils._pytree.tree_leaves(arguments)
    if any(isinstance(value, torch.SymFloat) for value in leaves):
        return Rejection("check", f"{node.target}: an argument is a float computed from sizes")
    numbers = [value for value in leaves if isinstance(value, torch.SymInt)]
    if rejection := _size_limits(node, converter, backend, numbers, sizes):
        return rejection
    try:
        reason = converter.check(arguments, node=node, features=backend.features)
    except GuardOnDataDependentSymNode as error:
        reason = f"whether {error.cond} depends on data"
    return None if reason is None else Rejection("check", f"{node.target}: {reason}")


def _known_bad(node: Node, backend: EngineBackend) -> Rejection | None:
    return why_known_bad(node, backend.name, str(backend.features.trt.__version__))


def _size_limits(
    node: Node,
    converter: Converter,
    backend: EngineBackend,
    numbers: Sequence[torch.SymInt],
    sizes: Set[sympy.Symbol] | None,
) -> Rejection | None:
    """Return why an engine cannot know the node's sizes and numbers, or None."""
    if converter.selects and not backend.selects:
        detail = f"{node.target}: {backend.name} has no kernel whose result's size depends on data"
        return Rejection("check", detail)
    if not converter.selects:
        reason = data_dependent(_tensors_in(node), _tensors_out(node), numbers)
        if reason is not None:
            return Rejection("shape", f"{node.target}: {reason}")
    for number in numbers:
        if not _is_of_sizes(number, node, sizes):
            detail = f"{node.target}: the number {number} is no size of an input tensor"
            return Rejection("check", detail)
        # A number that is no size in the cluster enters the engine as the size of an input.
        if backend.bounded and (rejection := _unbounded(number)):
            return rejection
    return None


def _is_of_sizes(value: torch.SymInt, node: Node, sizes: Set[sympy.Symbol] | None) -> bool:
    """Return whether a number can be computed from sizes: an engine takes tensors only.

    Sizes that depend on data are left to `data_dependent`.
    """
    symbols = value.node.expr.free_symbols - free_unbacked_symbols(value)
    return not symbols or symbols <= (input_sizes(node.graph) if sizes is None else sizes)


def _tensors_in(node: Node) -> list[torch.Tensor]:
    return _flat([n.meta.get("val") for n in node.all_input_nodes])


def _tensors_out(node: Node) -> list[torch.Tensor]:
    """Return the outputs of the node that are read."""
    output = node.meta.get("val")
    if isinstance(output, (tuple, list)):
        read = {user.args[1] for user in node.users if user.target is operator.getitem}
        output = [value for i, value in enumerate(output) if i in read]
    return _flat(output)


def _flat(values: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [value for value in leaves if isinstance(value, torch.Tensor)]


def _tensor_limits(
    tensor: torch.Tensor, backend: EngineBackend, converter: Converter
) -> Rejection | None:
    if tensor.dtype not in backend.features.dtypes | converter.dtypes:
        return Rejection("dtype", f"{backend.features.version} has no {tensor.dtype}")
    if reason := backend.supports(tensor.device):
        return Rejection("device", reason)
    if tensor.layout is not torch.strided:
        return Rejection(
            "shape", f"the tensor is sparse ({tensor.layout}), engines take dense ones"
        )
    if tensor.dim() > _MAX_RANK:
        return Rejection("shape", f"rank {tensor.dim()} is more than TensorRT's {_MAX_RANK}")
    for size in tensor.shape:
        if is_static(size) and int(size) == 0:
            return Rejection("shape", f"the tensor {tuple(tensor.shape)} is empty")
        if backend.bounded and (rejection := _unbounded(size)):
            return rejection
    return None


def _unbounded(size: Size) -> Rejection | None:
    """Return why an engine that allocates ahead cannot take a tensor of this size, or None."""
    if size_range(size)[1] is not None:
        return None
    if is_unbacked(size):
        detail = f"the size {size} depends on data and has no upper bound: slice [:max]"
    else:
        detail = (
            f"the size {size} has no upper bound: give one with torch._dynamo.mark_dynamic("
            f"tensor, dim, min=..., max=...) or torch.export.Dim(..., max=...), or all with "
            f"the option max_growth"
        )
    return Rejection("unbounded", detail)
