"""Compute what depends on weights alone once, at compile time."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import _disable_current_modes

from ..graph.aliases import Aliases, erase_dead, is_pure
from ..graph.metadata import fake_mode_of
from ..graph.weights import add_weight, weight
from ..registry import arguments_of

aten = torch.ops.aten

MAX_ELEMENTS = 1_000_000
"""A constant may have this many elements, or as many as the weights that it is made from."""

_UNINITIALISED = frozenset(
    {
        aten.empty,
        aten.empty_like,
        aten.empty_permuted,
        aten.empty_strided,
        aten.new_empty,
        aten.new_empty_strided,
    }
)

_FILLS: dict[OpOverload, int | None] = {
    aten.fill.Scalar: None,
    aten.full_like.default: None,
    aten.new_full.default: None,
    aten.new_ones.default: 1,
    aten.new_zeros.default: 0,
    aten.ones_like.default: 1,
    aten.zeros_like.default: 0,
}
"""Operators that read the dtype and device of their input but not its values, with the number that
they fill the result with. None stands for an argument of the call."""


def fold_constants(gm: GraphModule) -> bool:
    """`f(weight)`, `arange(5)` -> `get_attr`, with the value that eager computes.

    What shares its storage with an output stays: the caller may write to outputs, and every call
    gives a new one. A folded constant keeps the strides of its value, in memory of its own.
    """
    aliases = Aliases(gm)
    mode = fake_mode_of(gm)
    values: dict[Node, Any] = {}
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            tensor = weight(gm, node)
            if tensor is not None and not aliases.is_written(node):
                values[node] = tensor
        elif is_computable(node, values) and not (
            aliases.escapes(node) or aliases.is_written(node)
        ):
            values[node] = _compute(node, values)
    folded = [n for n in values if n.op != "get_attr" and _is_needed(n, values)]
    for node in folded:
        with gm.graph.inserting_before(node):
            constant = add_weight(gm, values[node].clone(), f"folded_{node.name}", mode)
        node.replace_all_uses_with(constant)
    erased = erase_dead(n for n in reversed(values) if n.op != "get_attr")
    return erased or bool(folded)


def is_computable(node: Node, known: Any) -> bool:
    """Return whether the node's value is fixed and small, given those of the nodes in `known`.

    It is deterministic, the tensors whose values it reads are known, and no size is symbolic.
    """
    if node.op != "call_function":
        return False
    inputs = [] if _fill_value(node) is not None else node.all_input_nodes
    if not all(n in known for n in inputs):
        return False
    if node.target is operator.getitem:
        return True
    target = node.target
    if not isinstance(target, OpOverload) or target.namespace not in ("aten", "prims"):
        return False
    if not is_pure(node) or target.overloadpacket in _UNINITIALISED:
        return False
    limit = sum(_elements(n.meta["val"]) for n in inputs)
    results = torch.utils._pytree.tree_leaves(node.meta["val"])
    return all(_is_plain(value) for value in results) and (
        _elements(results) <= max(limit, MAX_ELEMENTS)
    )


def _is_plain(value: Any) -> bool:
    """Return whether a value is a dense tensor of static sizes on a device that this machine
    has."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and all(isinstance(size, int) for size in value.shape)
        and (value.device.type == "cpu" or (value.is_cuda and torch.cuda.is_available()))
    )


def _elements(values: Any) -> int:
    leaves = torch.utils._pytree.tree_leaves(values)
    return sum(int(leaf.numel()) for leaf in leaves if isinstance(leaf, torch.Tensor))


def _fill_value(node: Node) -> bool | int | float | None:
    """Return the number that fills the node's result whatever its input holds, or None."""
    if node.target not in _FILLS:
        return None
    assert isinstance(node.target, OpOverload)
    value = _FILLS[node.target]
    if value is None:
        bound = arguments_of(node)
        value = bound.get("fill_value", bound.get("value"))
    return value if isinstance(value, (bool, int, float)) else None


def _compute(node: Node, values: dict[Node, Any]) -> Any:
    fill = _fill_value(node)
    if fill is not None:
        like = node.meta["val"]
        with _disable_current_modes():
            empty = torch.empty_strided(
                like.shape, like.stride(), dtype=like.dtype, device=like.device
            )
            return empty.fill_(fill)
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    with _disable_current_modes(), torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]  # a call_function


def _is_needed(node: Node, values: dict[Node, Any]) -> bool:
    """Return whether the value is a tensor that something beyond the constants reads."""
    return isinstance(values[node], torch.Tensor) and any(u not in values for u in node.users)
