"""Decides for each node whether an engine could run it, and says why not."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from .engines.base import EngineBackend
from .registry import Rejection, arguments_of, registered
from .shapes import Size, is_static, is_unbacked, size_range

__all__ = ["is_size", "support"]

_MAX_RANK = 8
_NUMBERS = (torch.SymInt, torch.SymFloat, torch.SymBool, int, float)


def support(node: Node, backend: EngineBackend, *, whitelisted: bool = False) -> Rejection | None:
    """Why `node`, a call, stays in PyTorch whatever surrounds it, or None.

    The node and its arguments have `meta["val"]`; nothing is built.

    Args:
        whitelisted: whether `Settings.whitelist` names the node, as an opt-in converter asks for.
    """
    if node.target is operator.getitem:
        producer = node.args[0]
        assert isinstance(producer, Node)
        return support(producer, backend, whitelisted=whitelisted)
    if not isinstance(node.target, OpOverload) or node.target not in registered():
        return Rejection("no_converter", f"{node.target} has no converter")
    converter = registered()[node.target]
    if converter.opt_in and not whitelisted:
        detail = f"{node.target} converts only if `whitelist` names it: {converter.opt_in}"
        return Rejection("opt_in", detail)
    for value in _tensors(node):
        if rejection := _tensor_limits(value, backend):
            return rejection
    arguments = {
        name: torch.fx.node.map_arg(value, lambda n: n.meta["val"])
        for name, value in arguments_of(node).items()
    }
    leaves = torch.utils._pytree.tree_leaves(arguments)
    if any(isinstance(value, torch.SymFloat) for value in leaves):
        return Rejection("check", f"{node.target}: an argument is a float computed from sizes")
    for value in leaves:
        if isinstance(value, torch.SymInt) and not _is_of_sizes(value, node):
            detail = f"{node.target}: the number {value} is no size of an input tensor"
            return Rejection("check", detail)
    reason = converter.check(arguments, node=node, features=backend.features)
    return None if reason is None else Rejection("check", f"{node.target}: {reason}")


def is_size(node: Node) -> bool:
    """Whether the node computes a size, or a number on the way to one, and not a tensor."""
    return node.op != "output" and isinstance(node.meta.get("val"), _NUMBERS)


def _is_of_sizes(value: torch.SymInt, node: Node) -> bool:
    """Whether a number can be computed from sizes; an engine takes tensors, and no other number."""
    symbols = set(value.node.expr.free_symbols)
    for placeholder in node.graph.find_nodes(op="placeholder") if symbols else ():
        fake = placeholder.meta.get("val")
        sizes: Sequence[Size] = fake.shape if isinstance(fake, torch.Tensor) else ()
        for size in sizes:
            if isinstance(size, torch.SymInt):
                symbols -= size.node.expr.free_symbols
    return not symbols


def _tensors(node: Node) -> list[torch.Tensor]:
    """Every tensor that the node takes or gives (outputs that nobody reads left out)."""
    values: list[Any] = [n.meta.get("val") for n in node.all_input_nodes]
    output = node.meta.get("val")
    if isinstance(output, (tuple, list)):
        read = {user.args[1] for user in node.users if user.target is operator.getitem}
        values += [value for i, value in enumerate(output) if i in read]
    else:
        values.append(output)
    flat = torch.utils._pytree.tree_leaves(values)
    return [value for value in flat if isinstance(value, torch.Tensor)]


def _tensor_limits(tensor: torch.Tensor, backend: EngineBackend) -> Rejection | None:
    if tensor.dtype not in backend.features.dtypes:
        return Rejection("dtype", f"{backend.features.version} has no {tensor.dtype}")
    if reason := backend.supports(tensor.device):
        return Rejection("device", reason)
    if tensor.dim() > _MAX_RANK:
        return Rejection("shape", f"rank {tensor.dim()} is more than TensorRT's {_MAX_RANK}")
    for size in tensor.shape:
        if is_unbacked(size):
            return Rejection("shape", f"the size {size} depends on data")
        if is_static(size) and int(size) == 0:
            return Rejection("shape", f"the tensor {tuple(tensor.shape)} is empty")
        if backend.bounded and size_range(size)[1] is None:
            return Rejection(
                "unbounded",
                f"the size {size} has no upper bound: give one with torch._dynamo.mark_dynamic("
                f"tensor, dim, min=..., max=...) or torch.export.Dim(..., max=...)",
            )
    return None
