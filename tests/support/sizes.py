"""Which sizes a traced graph is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule

from fxtrt.graph.sizes import expression, is_static

__all__ = ["may_run"]


def may_run(graph: GraphModule, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether what the trace took for granted of the sizes holds for `inputs`."""
    values: dict[Any, int] = {}
    environment = None
    for node, x in zip(graph.graph.find_nodes(op="placeholder"), inputs, strict=True):
        for traced, size in zip(node.meta["val"].shape, x.shape, strict=True):
            if is_static(traced):
                if int(traced) != size:
                    return False
            else:
                environment = traced.node.shape_env
                values[expression(traced)] = size
    if environment is None:
        return True
    known = (guard.expr.xreplace(environment.replacements) for guard in environment.guards)
    return all(bool(expr.xreplace(values)) for expr in known)
