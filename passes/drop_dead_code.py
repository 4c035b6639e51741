"""Erase what no output depends on."""

from __future__ import annotations

from torch.fx import GraphModule

from ..graph.aliases import erase_dead


def drop_dead_code(gm: GraphModule) -> bool:
    """`y = relu(x); return x` -> `return x`; weights that nobody reads leave the graph too.

    Inputs stay, and so does whatever writes to memory or draws random numbers.
    """
    return erase_dead(reversed(gm.graph.nodes))
