"""Make a graph compute in float32 whatever float type it was written in."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..graph.metadata import infer
from ..graph.weights import add_weight, weight

aten = torch.ops.aten

_HALVES = (torch.float16, torch.bfloat16)


def widen(gm: GraphModule) -> bool:
    """`conv(x, w)` -> `conv(x.float(), w.float()).half()`; inputs and outputs keep their types."""
    if not any(_computes_in_half(node) for node in gm.graph.nodes):
        return False
    output = gm.graph.output_node()
    dtypes = {node: node.meta["val"].dtype for node in output.all_input_nodes if _is_half(node)}
    changed: set[Node] = set()
    for node in [node for node in gm.graph.nodes if node is not output]:
        if node.op in ("placeholder", "get_attr") and _is_half(node):
            changed.add(_widened_source(gm, node))
        elif _is_half(node) or changed.intersection(node.all_input_nodes):
            _widen_call(node)
            changed.add(node)
    casts = {node: _cast(node, dtype) for node, dtype in dtypes.items() if not _is_half(node)}
    output.args = torch.fx.node.map_arg(output.args, lambda node: casts.get(node, node))
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return True


def _widened_source(gm: GraphModule, node: Node) -> Node:
    value = weight(gm, node)
    if value is None:
        wide = _cast(node, torch.float32)
    else:
        with gm.graph.inserting_after(node):
            wide = add_weight(gm, value.float(), f"{node.name}_wide")
    node.replace_all_uses_with(
        wide, delete_user_cb=lambda user: user is not wide and user.op != "output"
    )
    return wide


def _widen_call(node: Node) -> None:
    def argument(value: Any) -> Any:
        return torch.float32 if value in _HALVES else value

    node.args = torch.fx.node.map_aggregate(node.args, argument)
    node.kwargs = torch.fx.node.map_aggregate(node.kwargs, argument)
    if isinstance(node.target, OpOverload):
        for index, parameter in enumerate(node.target._schema.arguments[: len(node.args)]):
            if parameter.name == "half_to_float":
                node.update_arg(index, False)
    infer(node, node)


def _cast(node: Node, dtype: torch.dtype) -> Node:
    """Add a cast after `node`, and after all inputs."""
    point = node
    while point.next.op == "placeholder":
        point = point.next
    with node.graph.inserting_after(point):
        cast = node.graph.call_function(aten._to_copy.default, (node,), {"dtype": dtype})
    return infer(cast, node)


def _computes_in_half(node: Node) -> bool:
    if node.op != "call_function" or not _is_half(node):
        return False
    is_cast = node.target == aten._to_copy.default
    return not is_cast or any(user.op != "output" for user in node.users)


def _is_half(node: Node) -> bool:
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(leaf, torch.Tensor) and leaf.dtype in _HALVES for leaf in leaves)
