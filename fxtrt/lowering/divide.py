"""Divides a graph between engines and PyTorch, by what the engines of a target can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.fx import GraphModule, Node

from ..engines.target import Target
from ..graph.sizes import input_sizes
from ..partition.partition import Partition, partition, repair, without
from ..partition.support import support
from ..registry import Rejection

__all__ = ["Failures", "divide", "divide_again"]

Failures = Sequence[Mapping[str, Rejection]]
"""The names of the nodes that left clusters after each division whose clusters were built, and why
they left."""


def divide(
    gm: GraphModule, target: Target, failed: Mapping[Node, Rejection] | None = None
) -> Partition:
    """Return where each call of `gm` will run; nothing is built.

    The repairs of the partition are made: cheap nodes are copied to the sides that read them.

    Args:
        gm: a graph that was normalized.
        failed: the nodes whose engine turned out not to build, or to be wrong, and why.
    """
    sizes = input_sizes(gm.graph)

    def why_not(node: Node, whitelisted: bool) -> Rejection | None:
        known = (failed or {}).get(node)
        return known or support(node, target.backend, whitelisted=whitelisted, sizes=sizes)

    divided = repair(gm, partition(gm, why_not, target.settings))
    fuel = target.settings.fuel
    if fuel is None:
        return divided
    rejection = Rejection("fuel", f"fuel={fuel}: only so many clusters are converted")
    spent = [node for cluster in divided.clusters[fuel:] for node in cluster.nodes]
    return without(gm, divided, dict.fromkeys(spent, rejection))


def divide_again(gm: GraphModule, target: Target, failures: Failures) -> dict[Node, Rejection]:
    """Repeat the divisions after which nodes left, and return these nodes, to divide without them.

    Each division repairs the graph, so the next one finds it as it was found at the time. A name
    that the graph does not have is ignored: if something fails again, it is dealt with again.
    """
    leaving: dict[Node, Rejection] = {}
    for reasons in failures:
        divide(gm, target, leaving)
        leaving |= {node: reasons[node.name] for node in gm.graph.nodes if node.name in reasons}
    return leaving
