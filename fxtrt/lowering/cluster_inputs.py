"""Finds or makes up values for the inputs of clusters, to time and to compare them with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..capture.untouched import untouched_modes
from ..errors import CaptureError
from ..graph.sizes import hint

__all__ = ["made_up_values", "recorded_values", "visit_values"]


def recorded_values(
    gm: GraphModule, inputs: Sequence[Any], nodes: Collection[Node]
) -> dict[Node, Any]:
    """Run `gm` on `inputs`, one for each placeholder, and return the values of `nodes`.

    Raises:
        CaptureError: the graph takes another number of inputs.
    """
    run = _Recorder(gm, frozenset(nodes))
    _run(run, inputs)
    return run.kept


def visit_values(
    gm: GraphModule,
    inputs: Sequence[Any],
    groups: Sequence[Collection[Node]],
    visit: Callable[[int, Mapping[Node, Any]], None],
) -> None:
    """Run `gm` on `inputs`, and call `visit` with the number and the values of each group of nodes.

    It is called as soon as all values of the group are there, and they are freed when it returns
    unless another group has them too.

    Raises:
        CaptureError: the graph takes another number of inputs.
    """
    _run(_Visitor(gm, groups, visit), inputs)


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


class _Visitor(_Recorder):
    """Hands out the values of each group of nodes once they are complete."""

    def __init__(
        self,
        gm: GraphModule,
        groups: Sequence[Collection[Node]],
        visit: Callable[[int, Mapping[Node, Any]], None],
    ) -> None:
        super().__init__(gm, frozenset(node for group in groups for node in group))
        self._visit = visit
        self._pending = {number: frozenset(group) for number, group in enumerate(groups)}
        self._readers = Counter(node for group in self._pending.values() for node in group)

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self._wanted or n.op == "output":
            complete = [k for k, group in self._pending.items() if group <= self.kept.keys()]
            for number in complete:
                group = self._pending.pop(number)
                self._visit(number, {node: self.kept[node] for node in group})
                self._readers.subtract(group)
                for node in group:
                    if not self._readers[node]:
                        del self.kept[node]
        return value


def _run(run: _Recorder, inputs: Sequence[Any]) -> None:
    expected = len(run.graph.find_nodes(op="placeholder"))
    if len(inputs) != expected:
        raise CaptureError(f"the graph takes {expected} values, not {len(inputs)}")
    with torch.no_grad(), untouched_modes():
        run.run(*inputs, enable_io_processing=False)


def _made_up(fake: Any) -> Any:
    if not isinstance(fake, torch.Tensor):
        return hint(fake) if isinstance(fake, torch.SymInt) else fake
    sizes = [hint(size) for size in fake.shape]
    if fake.dtype.is_floating_point:
        return torch.rand(sizes, device=fake.device).to(fake.dtype)
    return torch.zeros(sizes, dtype=fake.dtype, device=fake.device)
