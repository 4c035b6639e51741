"""Groups the nodes that engines can run into few convex clusters; says why the rest stay out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from ..graph.flops import flops
from ..graph.nodes import computes, is_size, producer
from ..graph.patterns import Patterns
from ..registry import Rejection
from ..settings import Settings
from .boundaries import PYTORCH, crossings
from .components import Components
from .grouping import Grouper, Grouping
from .recompute import recompute

__all__ = ["Cluster", "Partition", "computes", "partition", "without"]

_ROUNDS = 8
"""Putting small parts out can join what they kept apart, so the rest is grouped again."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes that become one engine, in graph order, and how to build it."""

    name: str
    nodes: tuple[Node, ...]
    settings: Settings


@dataclass(frozen=True, slots=True)
class Partition:
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
) -> Partition:
    """The plan for `gm`: rules in the order blacklist, support, cluster size.

    Weights and sizes belong to no cluster: they are drawn in where they are used. A cluster is
    convex (no path leaves it and comes back), so every cluster can run as one call. Boundaries are
    repaired: small parts without heavy work that only pass values between PyTorch and itself run
    there, and what is cheap to compute is copied in `gm` to the side that reads it. The nodes of
    each of `settings.components` have clusters of their own.

    Args:
        support: why an engine cannot run a node, or None; asked once for each call, with whether
            the whitelist names it.
    """
    whitelist = Patterns(settings.whitelist)
    rejections = _not_convertible(gm, support, whitelist, Patterns(settings.blacklist))
    exempt = {
        node
        for node in gm.graph.nodes
        if _is_call(node) and node not in rejections and whitelist.match(producer(node))
    }
    components = Components(settings)
    grouper = Grouper(gm.graph, components.number, components.count)
    grouping = grouper.group(rejections)
    cuts_before = _count_cuts(gm, _sides(grouping, _small_clusters(grouping, components, exempt)))
    for _ in range(_ROUNDS):
        small = _small_clusters(grouping, components, exempt)
        small |= _islands(grouping, components, exempt | small.keys())
        if not small:
            break
        rejections |= small
        grouping = grouper.group(rejections)
    small = _small_clusters(grouping, components, exempt)
    rejections |= small
    sides = _sides(grouping, small)
    how = {side: components.settings(components.number(node)) for node, side in sides.items()}
    sides |= _recompute(gm, sides, rejections, components)
    kept = {node: rejections[node] for node in gm.graph.nodes if node in rejections}
    return Partition(_clusters(gm, sides, how), kept, _count_cuts(gm, sides), cuts_before)


def without(gm: GraphModule, plan: Partition, rejections: Mapping[Node, Rejection]) -> Partition:
    """`plan` with those clusters in PyTorch whose nodes `rejections` names."""
    clusters = tuple(c for c in plan.clusters if c.nodes[0] not in rejections)
    sides = {node: i for i, cluster in enumerate(clusters) for node in cluster.nodes}
    merged = {**plan.rejections, **rejections}
    ordered = {node: merged[node] for node in gm.graph.nodes if node in merged}
    return Partition(clusters, ordered, _count_cuts(gm, sides), plan.cuts_before_repair)


def _not_convertible(
    gm: GraphModule,
    support: Callable[[Node, bool], Rejection | None],
    whitelist: Patterns,
    blacklist: Patterns,
) -> dict[Node, Rejection]:
    rejections: dict[Node, Rejection] = {}
    for node in filter(_is_call, gm.graph.nodes):
        call = producer(node)
        if entry := blacklist.match(call):
            rejections[node] = Rejection("blacklist", f"{entry!r} is in the blacklist")
        elif rejection := support(node, whitelist.match(call) is not None):
            rejections[node] = rejection
    return rejections


def _small_clusters(
    grouping: Grouping, components: Components, exempt: Set[Node]
) -> dict[Node, Rejection]:
    """The calls of clusters with too few compute nodes, unless one of them is exempt."""
    found: dict[Node, Rejection] = {}
    for parts in grouping.clusters():
        nodes = [node for part in parts for node in part.nodes if not is_size(node)]
        size, minimum = sum(map(computes, nodes)), _minimum(components, nodes)
        if size < minimum and exempt.isdisjoint(nodes):
            detail = f"{size} compute nodes in the cluster, the minimum is {minimum}"
            found |= dict.fromkeys(nodes, Rejection("too_small", detail))
    return found


def _islands(
    grouping: Grouping, components: Components, exempt: Set[Node]
) -> dict[Node, Rejection]:
    """The calls of small parts that only cost their cluster cuts: nothing else in it needs them.

    A part with FLOPs that torch counts, a convolution or a matrix product, stays.
    """
    found: dict[Node, Rejection] = {}
    for part in grouping.parts:
        nodes = [node for node in part.nodes if not is_size(node)]
        if not nodes:
            continue
        size, minimum = sum(map(computes, nodes)), _minimum(components, nodes)
        if size >= minimum or not exempt.isdisjoint(nodes) or any(map(flops, nodes)):
            continue
        if (saved := grouping.traffic.saved_by_moving(part, PYTORCH)) > 0:
            detail = (
                f"{size} compute nodes apart from the rest of the cluster, the minimum is "
                f"{minimum}; in PyTorch they save {saved} cuts"
            )
            found |= dict.fromkeys(nodes, Rejection("too_small", detail))
    return found


def _minimum(components: Components, nodes: Sequence[Node]) -> int:
    return components.settings(components.number(nodes[0])).min_cluster_size


def _recompute(
    gm: GraphModule,
    sides: Mapping[Node, int],
    rejections: dict[Node, Rejection],
    components: Components,
) -> dict[Node, int]:
    """Copy cheap nodes to where they save cuts; the sides of those in clusters."""
    too_small = {node for node, rejection in rejections.items() if rejection.code == "too_small"}
    known = sides.keys() | too_small
    component = {side: components.number(node) for node, side in sides.items()}

    def fits(node: Node, side: int) -> bool:
        return node in known and components.number(node) == component[side]

    copies = recompute(gm, sides, fits)
    for node, side in copies.items():
        if side == PYTORCH:
            detail = "computed again in PyTorch, from what is there: that saves a cut"
            rejections[node] = Rejection("recomputed", detail)
    return {node: side for node, side in copies.items() if side != PYTORCH}


def _sides(grouping: Grouping, left_out: Collection[Node]) -> dict[Node, int]:
    """The index of its cluster for every call that is in one."""
    clusters = (
        [node for part in parts for node in part.nodes if not is_size(node)]
        for parts in grouping.clusters()
    )
    kept = (nodes for nodes in clusters if nodes[0] not in left_out)
    return {node: i for i, nodes in enumerate(kept) for node in nodes}


def _clusters(
    gm: GraphModule, sides: Mapping[Node, int], how: Mapping[int, Settings]
) -> tuple[Cluster, ...]:
    members: defaultdict[int, list[Node]] = defaultdict(list)
    for node in gm.graph.nodes:
        if node in sides:
            members[sides[node]].append(node)
    return tuple(
        Cluster(f"cluster_{i}", tuple(members[side]), how[side])
        for i, side in enumerate(sorted(members))
    )


def _count_cuts(gm: GraphModule, sides: Mapping[Node, int]) -> int:
    return sum(map(len, crossings(gm, sides).values()))


def _is_call(node: Node) -> bool:
    return node.op.startswith("call_") and not is_size(node)
