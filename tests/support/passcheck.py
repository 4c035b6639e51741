"""What every pass must satisfy, checked on a graph: it changes it once, lints, equals eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

Pass = Callable[[GraphModule], bool]


def targets(gm: GraphModule) -> list[str]:
    """The targets of the graph's calls, in order: ["relu.default", "getitem"]."""
    return [_name(node) for node in gm.graph.nodes if node.op == "call_function"]


def weights(gm: GraphModule) -> list[str]:
    """The targets of the graph's `get_attr` nodes, in order."""
    return [str(node.target) for node in gm.graph.nodes if node.op == "get_attr"]


def check_changes(
    run: Pass, gm: GraphModule, inputs: Sequence[torch.Tensor], *, tolerance: float = 0.0
) -> Any:
    """Run the pass, which must change the graph, keep its results, and find nothing more to do.

    Returns what the changed graph gives.
    """
    expected = gm(*[x.clone() for x in inputs])
    before = targets(gm), weights(gm)
    assert run(gm)
    assert (targets(gm), weights(gm)) != before
    actual = _settled(gm, inputs)
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=True
    )
    assert not run(gm)
    return actual


def check_keeps(run: Pass, gm: GraphModule) -> None:
    """Run the pass, which must leave the graph as it is."""
    before = str(gm.graph)
    assert not run(gm)
    assert str(gm.graph) == before


def _settled(gm: GraphModule, inputs: Sequence[torch.Tensor]) -> Any:
    gm.graph.lint()
    gm.recompile()
    assert all("val" in node.meta for node in gm.graph.nodes if node.op != "output")
    return gm(*[x.clone() for x in inputs])


def _name(node: Node) -> str:
    if isinstance(node.target, OpOverload):
        return str(node.target).removeprefix("aten.")
    return node.target if isinstance(node.target, str) else node.target.__name__
