"""Groups the nodes that engines can run into few convex clusters, and rejects the others."""

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
from .recompute import Recomputation, recomputations, recompute
from .worth import worth

__all__ = ["Cluster", "Partition", "computes", "partition", "repair", "without"]

_ROUNDS = 8
"""The most rounds of grouping: clusters may merge when a small part between them is rejected."""


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
    and results are not cuts, and neither are sizes; but a tensor counts as a cut even if only its
    size is read outside of its cluster.

    cuts:               the number of cuts before `repairs` are made.
    cuts_before_repair: the number of cuts before parts are rejected or nodes copied to save cuts.
    repairs:            the nodes that `repair` will copy to the sides that read them. A side is an
                        index into `clusters`, or PyTorch.
    """

    clusters: tuple[Cluster, ...]
    rejections: Mapping[Node, Rejection]
    cuts: int
    cuts_before_repair: int
    repairs: tuple[Recomputation, ...] = ()


def partition(
    gm: GraphModule, support: Callable[[Node, bool], Rejection | None], settings: Settings
) -> Partition:
    """Divide the nodes of `gm` between clusters and PyTorch, without changing `gm`.

    A node stays in PyTorch if the blacklist names it, if engines do not support it, or if its
    cluster is too small. A small part of a cluster without heavy work also runs in PyTorch if that
    saves cuts. In a graph with FLOPs, a cluster without any must save more time than its engine
    costs. A cluster is convex (no path leaves it and comes back), so it can run as one call.
    Weights and sizes belong to no cluster: each cluster that reads them gets them when it is
    extracted. The nodes of each of `settings.components` have clusters of their own. `repairs`
    lists the cheap nodes that `repair` will copy to other sides.

    Args:
        support: returns why an engine cannot run a node, or None. It is called once for each call
            in the graph, with whether the whitelist names the node.
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
    estimates = settings.partition != "measured" and any(map(flops, gm.graph.nodes))
    for _ in range(_ROUNDS):
        small = _small_clusters(grouping, components, exempt)
        small |= _islands(grouping, components, exempt | small.keys())
        # Clusters may still grow while there are small ones between them.
        rejected = small or (_not_worth_it(grouping, exempt) if estimates else {})
        if not rejected:
            break
        rejections |= rejected
        grouping = grouper.group(rejections)
    small = _small_clusters(grouping, components, exempt)
    rejections |= small
    sides = _sides(grouping, small)
    how = {side: components.settings(components.number(node)) for node, side in sides.items()}
    ordered = {node: rejections[node] for node in gm.graph.nodes if node in rejections}
    return Partition(
        _clusters(gm, sides, how),
        ordered,
        _count_cuts(gm, sides),
        cuts_before,
        _repairs(gm, sides, rejections, components),
    )


def repair(gm: GraphModule, divided: Partition) -> Partition:
    """Make the repairs of a partition in `gm`, and return the partition of the changed graph."""
    sides = _sides_of(divided.clusters)
    how = {side: cluster.settings for side, cluster in enumerate(divided.clusters)}
    rejections = dict(divided.rejections)
    for copy, side in recompute(gm, divided.repairs).items():
        if side == PYTORCH:
            detail = "computed again in PyTorch, from what is there: that saves a cut"
            rejections[copy] = Rejection("recomputed", detail)
        else:
            sides[copy] = side
    ordered = {node: rejections[node] for node in gm.graph.nodes if node in rejections}
    clusters, cuts = _clusters(gm, sides, how), _count_cuts(gm, sides)
    return Partition(clusters, ordered, cuts, divided.cuts_before_repair)


def without(gm: GraphModule, divided: Partition, rejections: Mapping[Node, Rejection]) -> Partition:
    """Return a repaired partition without the clusters whose nodes are in `rejections`."""
    clusters = tuple(c for c in divided.clusters if c.nodes[0] not in rejections)
    merged = {**divided.rejections, **rejections}
    ordered = {node: merged[node] for node in gm.graph.nodes if node in merged}
    cuts = _count_cuts(gm, _sides_of(clusters))
    return Partition(clusters, ordered, cuts, divided.cuts_before_repair)


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
    """Reject the calls of clusters with too few compute nodes, unless one of them is exempt."""
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
    """Reject the calls of small connected parts of a cluster that save cuts if PyTorch runs them.

    A part stays if torch counts FLOPs for it, as for a convolution or a matrix product.
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


def _not_worth_it(grouping: Grouping, exempt: Set[Node]) -> dict[Node, Rejection]:
    """Reject the calls of clusters without FLOPs whose engines would cost more than they save."""
    found: dict[Node, Rejection] = {}
    for parts in grouping.clusters():
        nodes = [node for part in parts for node in part.nodes if not is_size(node)]
        if any(map(flops, nodes)) or not exempt.isdisjoint(nodes):
            continue
        estimate = worth(nodes)
        if estimate.saves_us <= estimate.costs_us:
            found |= dict.fromkeys(nodes, Rejection("not_worth_it", str(estimate)))
    return found


def _minimum(components: Components, nodes: Sequence[Node]) -> int:
    return components.settings(components.number(nodes[0])).min_cluster_size


def _repairs(
    gm: GraphModule,
    sides: Mapping[Node, int],
    rejections: Mapping[Node, Rejection],
    components: Components,
) -> tuple[Recomputation, ...]:
    """Find the cheap nodes whose copies on other sides save cuts."""
    codes = ("too_small", "not_worth_it")
    convertible = {node for node, rejection in rejections.items() if rejection.code in codes}
    known = sides.keys() | convertible
    component = {side: components.number(node) for node, side in sides.items()}

    def fits(node: Node, side: int) -> bool:
        return node in known and components.number(node) == component[side]

    return recomputations(gm, sides, fits)


def _sides_of(clusters: Sequence[Cluster]) -> dict[Node, int]:
    return {node: side for side, cluster in enumerate(clusters) for node in cluster.nodes}


def _sides(grouping: Grouping, left_out: Collection[Node]) -> dict[Node, int]:
    """Number the clusters that are not in `left_out`; return the number of each call's cluster."""
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
