"""Copies a stitched graph so that its selections look at all candidates."""

from __future__ import annotations

import copy

from torch._ops import OpOverload
from torch.fx import GraphModule

__all__ = ["with_all_candidates"]

_ALL = 2**31 - 1
_NAME = "candidates"
"""The argument of fxtrt's selections that bounds what their kernels look at."""


def with_all_candidates(gm: GraphModule) -> GraphModule:
    """Return a copy that shares engines and weights with `gm`, and has no bound on candidates.

    Its selections run in PyTorch, and wait for the GPU; their result is certain.
    """
    unbounded = GraphModule(gm, copy.deepcopy(gm.graph))
    for node in unbounded.graph.nodes:
        if not isinstance(node.target, OpOverload) or node.target.namespace != "fxtrt":
            continue
        names = [argument.name for argument in node.target._schema.arguments]
        if _NAME not in names:
            continue
        if _NAME in node.kwargs:
            node.update_kwarg(_NAME, _ALL)
        else:
            node.update_arg(names.index(_NAME), _ALL)
    unbounded.recompile()
    return unbounded
