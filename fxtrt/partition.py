"""Groups the nodes that engines can run into few convex clusters; says why the rest stay out."""

from __future__ import annotations

import operator
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from .cuts import crossings
from .graph import dependencies
from .lists import Patterns
from .registry import Rejection, is_view, registered
from .settings import Settings
from .support import is_size

__all__ = ["Cluster", "PartitionPlan", "computes", "partition"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that become one engine, in graph order."""

    name: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """Where every call runs: in a cluster, or in PyTorch for a reason.

    A cut is one tensor that passes between a cluster and PyTorch or another cluster, counted once
    for each side that reads it (PyTorch as a whole is one side). The graph's own inputs, weights
    and results are no cuts, and neither are sizes; but a tensor of which only a size is read
    outside of its cluster is one.

    cuts:               in this plan.
    cuts_before_repair: in the plan as it was before its boundaries were repaired.
    """

    clusters: tuple[Cluster, ...]
    rejections: Mapping[Node, Rejection]
    cuts: int
    cuts_before_repair: int


def partition(
    gm: GraphModule, support: Callable[[Node, bool], Rejection | None], settings: Settings
) -> PartitionPlan:
    """The plan for `gm`: rules in the order blacklist, support, cluster size.

    Weights and sizes belong to no cluster: they are drawn in where they are used. A cluster is
    convex (no path leaves it and comes back), so every cluster can run as one call.

    Args:
        support: why an engine cannot run a node, or None; asked once for each call, with whether
            the whitelist names it.
    """
    whitelist, blacklist = Patterns(settings.whitelist), Patterns(settings.blacklist)
    rejections: dict[Node, Rejection] = {}
    for node in gm.graph.nodes:
        if not _is_call(node):
            continue
        if entry := blacklist.match(_producer(node)):
            rejections[node] = Rejection("blacklist", f"{entry!r} is in the blacklist")
        elif rejection := support(node, whitelist.match(_producer(node)) is not None):
            rejections[node] = rejection
    clusters: list[Cluster] = []
    for nodes in _convex_groups(gm, rejections):
        size = sum(map(computes, nodes))
        if size >= settings.min_cluster_size or any(whitelist.match(node) for node in nodes):
            clusters.append(Cluster(f"cluster_{len(clusters)}", tuple(nodes)))
            continue
        detail = f"{size} compute nodes in the cluster, the minimum is {settings.min_cluster_size}"
        rejections |= dict.fromkeys(nodes, Rejection("too_small", detail))
    sides = {node: i for i, cluster in enumerate(clusters) for node in cluster.nodes}
    cuts = sum(map(len, crossings(gm, sides).values()))
    return PartitionPlan(tuple(clusters), rejections, cuts, cuts)


def computes(node: Node) -> bool:
    """Whether a node counts towards a cluster's minimum size."""
    if not isinstance(node.target, OpOverload):
        return False
    converter = registered().get(node.target)
    return not is_view(node.target) if converter is None else converter.computes


def _convex_groups(gm: GraphModule, rejected: Mapping[Node, Rejection]) -> list[list[Node]]:
    """The fewest groups along every path: run all that can run here, then all that can there.

    A scheduler with two kinds of machine: it empties the queue of ready PyTorch nodes, then the
    queue of ready engine nodes, which makes one group, and so on. Switching only when nothing is
    left to do is optimal for the number of switches. A group can depend on earlier groups only,
    so it is convex. The groups depend on the graph alone, not on the order of its nodes.
    """
    needed = dependencies(gm.graph)
    waiting = {node: len(inputs) for node, inputs in needed.items()}
    users: defaultdict[Node, list[Node]] = defaultdict(list)
    for node, inputs in needed.items():
        for source in inputs:
            users[source].append(node)
    queues: tuple[deque[Node], deque[Node]] = (deque(), deque())
    for node, count in waiting.items():
        if not count:
            queues[_runs_in_engine(node, rejected)].append(node)
    groups: list[list[Node]] = []
    in_engine = False
    while any(queues):
        group: list[Node] = []
        queue = queues[in_engine]
        while queue:
            node = queue.popleft()
            group.append(node)
            for user in users[node]:
                waiting[user] -= 1
                if not waiting[user]:
                    _enqueue(user, node, rejected, queues, in_engine)
        if in_engine and group:
            groups.append(group)
        in_engine = not in_engine
    position = {node: i for i, node in enumerate(gm.graph.nodes)}
    members = ([node for node in group if _is_call(node)] for group in groups)
    return [sorted(group, key=position.__getitem__) for group in members if group]


def _enqueue(
    node: Node,
    source: Node,
    rejected: Mapping[Node, Rejection],
    queues: tuple[deque[Node], deque[Node]],
    in_engine: bool,
) -> None:
    """Sizes and weights run on either side: they never force a switch."""
    side = in_engine if _is_free(node) else _runs_in_engine(node, rejected)
    queues[side].append(node)


def _runs_in_engine(node: Node, rejected: Mapping[Node, Rejection]) -> bool:
    return _is_call(node) and node not in rejected


def _is_free(node: Node) -> bool:
    return node.op == "get_attr" or is_size(node)


def _is_call(node: Node) -> bool:
    return node.op.startswith("call_") and not is_size(node)


def _producer(node: Node) -> Node:
    """The node whose result this is: `getitem` belongs to what it takes from."""
    source = node.args[0] if node.target is operator.getitem else node
    assert isinstance(source, Node)
    return source
