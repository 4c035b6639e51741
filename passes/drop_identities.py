"""Erase calls that return their input unchanged."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.aliases import Aliases, is_pure
from ..graph.metadata import same_metadata
from ..registry import arguments_of

aten = torch.ops.aten

_COPIES = frozenset(
    {
        aten._to_copy.default,
        aten._unsafe_view.default,
        aten.clone.default,
        aten.lift_fresh_copy.default,
    }
)
_DROPOUTS = frozenset(
    {
        aten.alpha_dropout.default,
        aten.dropout.default,
        aten.feature_alpha_dropout.default,
        aten.feature_dropout.default,
    }
)


def drop_identities(gm: GraphModule) -> bool:
    """`f(clone(x))` -> `f(x)`; likewise views, casts, slices and dropouts that change nothing.

    A copy stays where eager gives the caller memory of its own: without it, an output would share
    the storage of an input, a weight or another output. Whatever is written to stays untouched.
    """
    aliases = Aliases(gm)
    changed = False
    for node in list(gm.graph.nodes):
        source = _source(node, aliases)
        if source is None or aliases.is_written(node) or aliases.is_written(source):
            continue
        node.replace_all_uses_with(source)
        aliases.replace(node, source)
        _erase(node)
        changed = True
    return changed


def _erase(node: Node) -> None:
    """Erase an unused call, and the dropout that it reads: those draw no numbers in evaluation."""
    inputs = node.all_input_nodes
    node.graph.erase_node(node)
    for producer in inputs:
        if producer.target is aten.native_dropout.default and not producer.users:
            node.graph.erase_node(producer)


def _source(node: Node, aliases: Aliases) -> Node | None:
    """Return the node whose value `node` repeats and by which it may be replaced, or None."""
    if node.op != "call_function" or not node.users:
        return None
    if source := _undropped(node):
        return source
    if not (isinstance(node.target, OpOverload) and is_pure(node) and node.args):
        return None
    source = node.args[0]  # type: ignore[assignment]  # checked next
    if not isinstance(source, Node) or not isinstance(node.meta["val"], torch.Tensor):
        return None
    if _is_view(node) and _may_drop_view(node, source, aliases):
        return source
    if _is_copy(node) and _may_drop_copy(node, source, aliases):
        return source
    return None


def _undropped(node: Node) -> Node | None:
    """Return the input of a dropout in evaluation, which eager gives back itself."""
    if node.target in _DROPOUTS:
        dropout, source = node, node.args[0]
    elif node.target is operator.getitem and node.args[1] == 0:
        dropout = node.args[0]  # type: ignore[assignment]  # checked on the next line
        if not isinstance(dropout, Node) or dropout.target is not aten.native_dropout.default:
            return None
        source = dropout.args[0]
    else:
        return None
    assert isinstance(dropout.target, OpOverload)
    assert isinstance(source, Node)
    # native_dropout takes None for True.
    return source if arguments_of(dropout)["train"] is False else None


def _is_view(node: Node) -> bool:
    """Return whether the call gives its first argument's storage with the same metadata.

    Equal shape, strides and offset in one storage are the same elements, whichever view it is.
    """
    target = node.target
    assert isinstance(target, OpOverload)
    if target.namespace != "aten" or len(target._schema.returns) != 1:
        return False
    first = target._schema.arguments[0]
    if first.alias_info is None or target._schema.returns[0].alias_info is None:
        return False
    if arguments_of(node).get("copy"):
        return False
    return same_metadata(node.meta["val"], _value(node.args[0]), offset=True)


def _is_copy(node: Node) -> bool:
    """Return whether the call gives the same elements, in the same layout, in memory of their
    own."""
    if not same_metadata(node.meta["val"], _value(node.args[0])):
        return False
    if node.target in _COPIES:
        return not node.kwargs.get("pin_memory")
    neutral = _NEUTRAL.get(node.target)
    dtype = node.meta["val"].dtype
    # A complex product with 1 is not the identity: inf * 0 gives NaN in the other part.
    if neutral is None or dtype.is_complex or len(node.args) != 2:
        return False
    other = node.args[1]
    return type(other) in (bool, int, float) and neutral(other, dtype, node.kwargs)


def _keeps_at_one(other: Any, _: torch.dtype, kwargs: dict[str, Any]) -> bool:
    return bool(other == 1) and not kwargs


def _keeps_at_zero_subtracted(other: Any, dtype: torch.dtype, kwargs: dict[str, Any]) -> bool:
    """Return whether `x - other` is `x`: -0.0 - 0.0 is -0.0, but -0.0 - (-0.0) is 0.0."""
    positive = math.copysign(1.0, other) > 0 or not dtype.is_floating_point
    return bool(other == 0) and positive and kwargs.get("alpha", 1) == 1


def _keeps_at_zero_added(other: Any, dtype: torch.dtype, kwargs: dict[str, Any]) -> bool:
    """Return whether `x + other` is `x`: for integers only, since -0.0 + 0.0 is 0.0."""
    return bool(other == 0) and not dtype.is_floating_point and kwargs.get("alpha", 1) == 1


_NEUTRAL: dict[Any, Callable[[Any, torch.dtype, Any], bool]] = {
    aten.mul.Tensor: _keeps_at_one,
    aten.mul.Scalar: _keeps_at_one,
    aten.div.Tensor: _keeps_at_one,
    aten.div.Scalar: _keeps_at_one,
    aten.sub.Tensor: _keeps_at_zero_subtracted,
    aten.add.Tensor: _keeps_at_zero_added,
}
"""The tests whether a number as second argument leaves the first one unchanged, bit by bit."""


def _may_drop_view(node: Node, source: Node, aliases: Aliases) -> bool:
    """Return whether every output stays a tensor object of its own, as in eager."""
    if not aliases.is_returned(node):
        return True
    return not (aliases.is_returned(source) or source.op in ("placeholder", "get_attr"))


def _may_drop_copy(node: Node, source: Node, aliases: Aliases) -> bool:
    if not aliases.escapes(node):
        return True
    return not (aliases.is_external(source) or aliases.escapes(source))


def _value(argument: Any) -> Any:
    return argument.meta["val"]
