"""Finds or makes up values for the inputs of clusters, to time and to compare them with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..capture.untouched import untouched_modes
from ..errors import CaptureError
from ..graph.sizes import hint

__all__ = ["made_up_values", "recorded_values"]


def recorded_values(
    gm: GraphModule, inputs: Sequence[Any], nodes: Collection[Node]
) -> dict[Node, Any]:
    """Run `gm` on `inputs`, one for each placeholder, and return the values of `nodes`.

    Raises:
        CaptureError: the graph takes another number of inputs.
    """
    expected = len(gm.graph.find_nodes(op="placeholder"))
    if len(inputs) != expected:
        raise CaptureError(f"the graph takes {expected} values, not {len(inputs)}")
    run = _Recorder(gm, frozenset(nodes))
    with torch.no_grad(), untouched_modes():
        run.run(*inputs, enable_io_processing=False)
    return run.kept


def made_up_values(nodes: Iterable[Node]) -> list[Any]:
    """Make up a value for each node, with the shape and dtype that it was traced with.

    Floats are random, in 0..1; integers are 0, which is a valid index of every tensor.
    """
    with untouched_modes():
        return [_made_up(node.meta["val"]) for node in nodes]


class _Recorder(Interpreter):
    """Keeps the values of the wanted nodes while it runs a graph."""

    def __init__(self, gm: GraphModule, wanted: frozenset[Node]) -> None:
        super().__init__(gm)
        self._wanted = wanted
        self.kept: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self._wanted:
            self.kept[n] = value
        return value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, OpOverload) and target._schema.is_mutable:
            # The operator writes to copies, so that buffers and inputs stay as they are.
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        return super().call_function(target, args, kwargs)


def _made_up(fake: Any) -> Any:
    if not isinstance(fake, torch.Tensor):
        return hint(fake) if isinstance(fake, torch.SymInt) else fake
    sizes = [hint(size) for size in fake.shape]
    if fake.dtype.is_floating_point:
        return torch.rand(sizes, device=fake.device).to(fake.dtype)
    return torch.zeros(sizes, dtype=fake.dtype, device=fake.device)
