"""Erase the checks that capture leaves in the graph."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from ..graph.aliases import erase_dead

aten = torch.ops.aten

_ASSERTIONS = frozenset(
    {
        aten._assert_async.default,
        aten._assert_async.msg,
        aten._assert_scalar.default,
        aten._assert_tensor_metadata.default,
        aten._functional_assert_async.msg,
        aten._functional_assert_scalar.default,
        aten._functional_sym_constrain_range.default,
        aten._functional_sym_constrain_range_for_size.default,
        aten.sym_constrain_range.default,
        aten.sym_constrain_range_for_size.default,
        torch._assert,
        torch._assert_async,
        torch._check,
        torch._check_is_size,
    }
)


def drop_assertions(gm: GraphModule) -> bool:
    """`_assert_scalar(le(u0, 5))` -> nothing; what only the check reads goes too.

    The sizes keep the ranges that the checks gave them: those are in the graph's ShapeEnv.
    """
    changed = False
    for node in reversed(list(gm.graph.nodes)):
        if node.op == "call_function" and node.target in _ASSERTIONS and not node.users:
            inputs = node.all_input_nodes
            gm.graph.erase_node(node)
            erase_dead(n for n in inputs if n.op == "call_function")
            changed = True
    return changed
