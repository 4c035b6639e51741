"""Make every call read those weights anew that the graph writes."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from ..graph.aliases import Aliases, written_inputs
from ..graph.metadata import infer
from ..registry import explain

_NAME = "fxtrt::live"
torch.library.define(_NAME, "(Tensor(a) self) -> Tensor(a)")
torch.library.impl(_NAME, "CompositeExplicitAutograd", torch.ops.aten.alias.default)
explain(_NAME, "the model writes to this weight, so that each call reads it again")


def keep_written_weights(gm: GraphModule) -> bool:
    """`f(w); w.copy_(y)` -> `f(live(w)); w.copy_(y)`, with an operator that engines do not have.

    A `get_attr` that is read directly is a constant to folds and engines, with the value that it
    had when it was compiled.
    """
    aliases = Aliases(gm)
    changed = False
    for node in gm.graph.find_nodes(op="get_attr"):
        if not aliases.is_written(node):
            continue
        readers = [user for user in node.users if not _is_done(user, node)]
        if readers:
            _read(node, readers)
            changed = True
    return changed


def _is_done(user: Node, weight: Node) -> bool:
    """Return whether a user only writes to the weight, or is what this pass puts there."""
    is_live = user.target is torch.ops.fxtrt.live.default
    return is_live or (weight in written_inputs(user) and user.all_input_nodes.count(weight) == 1)


def _read(node: Node, readers: list[Node]) -> None:
    with node.graph.inserting_after(node):
        live = node.graph.call_function(torch.ops.fxtrt.live.default, (node,))
    infer(live, node)
    for reader in readers:
        reader.replace_input_with(node, live)
