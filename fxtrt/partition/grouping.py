"""Groups the nodes that engines can run into the fewest convex clusters, with few cuts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node

from ..graph.nodes import is_size
from ..graph.order import dependencies
from .boundaries import PYTORCH

__all__ = ["ConnectedPart", "Grouper", "Grouping"]


@dataclass(frozen=True, slots=True)
class ConnectedPart:
    """Connected nodes of one cluster; no other node of the cluster reads or feeds them."""

    cluster: int
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Grouping:
    """The connected parts of all clusters, numbered along the data flow, and the traffic."""

    parts: Sequence[ConnectedPart]
    traffic: Traffic

    def clusters(self) -> list[list[ConnectedPart]]:
        """Return the parts of each cluster that has calls."""
        found: defaultdict[int, list[ConnectedPart]] = defaultdict(list)
        for part in self.parts:
            if any(not is_size(node) for node in part.nodes):
                found[part.cluster].append(part)
        return [found[index] for index in sorted(found)]


class Grouper:
    """Groups the nodes of a graph, for any choice of rejected nodes.

    Args:
        component: gives each call a number below `components`. Calls of different components
            never share a cluster.
    """

    def __init__(
        self, graph: Graph, component: Callable[[Node], int] = lambda node: 0, components: int = 1
    ) -> None:
        self._needed = dependencies(graph)
        self._users: defaultdict[Node, list[Node]] = defaultdict(list)
        for node, inputs in self._needed.items():
            for source in inputs:
                self._users[source].append(node)
        calls = {n for n in graph.nodes if n.op.startswith("call_") and not is_size(n)}
        self._tensors = {node: [n for n in node.all_input_nodes if n in calls] for node in calls}
        self._component = {node: component(node) for node in calls}
        self._kinds = 1 + components

    def group(self, rejected: Collection[Node]) -> Grouping:
        """Return the fewest clusters that hold every call but those in `rejected`.

        Think of stages that run in turn: PyTorch, engine, PyTorch, engine ... A node runs in the
        first stage of its kind in which its inputs are there, so there are as many stages as the
        longest path asks for, which no other grouping undercuts; and a cluster, all of one engine
        stage, is convex. Weights and sizes run in either kind. Then a connected part that a later
        cluster reads before PyTorch does moves there, where that saves a cut. With more components
        each has a kind of stage, and they take turns.

        The clusters depend on the graph alone, not on the order of its nodes. Linear time.
        """
        kinds = {node: 1 + at for node, at in self._component.items() if node not in rejected}
        stages = _earliest(self._needed, kinds, self._kinds)
        traffic = Traffic(stages, self._tensors, self._kinds)
        parts = _connected(self._needed, stages, self._kinds)
        for part in sorted(parts, key=lambda part: part.cluster, reverse=True):
            target = _joining_stage(part, self._users, stages, self._kinds)
            if target is not None and traffic.saved_by_moving(part, target) > 0:
                stages |= dict.fromkeys(part.nodes, target)
                traffic.move(part, target)
        return Grouping(_connected(self._needed, stages, self._kinds), traffic)


class Traffic:
    """Counts how often each side reads each tensor that a call makes.

    Sides are engine stages, or `PYTORCH`. The graph's inputs and results do not count.

    Args:
        stages: the stage of each node; the caller changes it when a part moves.
        tensors: what each call reads that other calls make.
        kinds: the number of kinds of stages; PyTorch has the multiples of it.
    """

    def __init__(
        self, stages: Mapping[Node, int], tensors: Mapping[Node, Sequence[Node]], kinds: int
    ) -> None:
        self._stages = stages
        self._kinds = kinds
        self._tensors = tensors
        self._reads: Counter[tuple[Node, int]] = Counter()
        for node, sources in self._tensors.items():
            side = self._side(node)
            for source in sources:
                self._reads[source, side] += 1

    def saved_by_moving(self, part: ConnectedPart, target: int) -> int:
        """Return how many cuts are saved with `part` on the side `target`."""
        saved = 0
        for source, count in self._inputs(part).items():
            saved += self._reads[source, part.cluster] == count
            saved -= self._side(source) != target and not self._reads[source, target]
        for node in part.nodes:
            saved += self._reads[node, target] > 0
        return saved

    def move(self, part: ConnectedPart, target: int) -> None:
        """Count `part` as run by `target` from now on."""
        for source, count in self._inputs(part).items():
            self._reads[source, part.cluster] -= count
            self._reads[source, target] += count
        for node in part.nodes:
            self._reads[node, target] += self._reads.pop((node, part.cluster), 0)

    def _inputs(self, part: ConnectedPart) -> Counter[Node]:
        """Count the tensors that `part` takes from calls outside of it."""
        members = set(part.nodes)
        return Counter(
            source
            for node in part.nodes
            for source in self._tensors.get(node, ())
            if source not in members
        )

    def _side(self, node: Node) -> int:
        stage = self._stages[node]
        return stage if stage % self._kinds else PYTORCH


def _earliest(
    needed: Mapping[Node, list[Node]], kind: Mapping[Node, int], kinds: int
) -> dict[Node, int]:
    """Return the first stage in which each node can run.

    PyTorch has the multiples of `kinds`; the stages after each are those of the engines in turn.
    """
    stages: dict[Node, int] = {}
    for node, inputs in needed.items():
        stage = max((stages[source] for source in inputs), default=0)
        if node.op != "get_attr" and not is_size(node):
            stage += (kind.get(node, 0) - stage) % kinds
        stages[node] = stage
    return stages


def _connected(
    needed: Mapping[Node, list[Node]], stages: Mapping[Node, int], kinds: int
) -> list[ConnectedPart]:
    """Return the connected parts of every engine stage."""
    parents: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        while (parent := parents[node]) is not node:
            parents[node] = parents[parent]
            node = parent
        return node

    for node, inputs in needed.items():
        if not stages[node] % kinds:
            continue
        parents[node] = node
        for source in inputs:
            if stages[source] == stages[node]:
                parents[root(source)] = root(node)
    members: defaultdict[Node, list[Node]] = defaultdict(list)
    for node in parents:
        members[root(node)].append(node)
    return [ConnectedPart(stages[node], tuple(nodes)) for node, nodes in members.items()]


def _joining_stage(
    part: ConnectedPart,
    users: Mapping[Node, Sequence[Node]],
    stages: Mapping[Node, int],
    kinds: int,
) -> int | None:
    """Return the later stage of its kind that reads `part`, if no other kind reads it first."""
    later = {
        stages[user]
        for node in part.nodes
        for user in users.get(node, ())
        if stages[user] != part.cluster
    }
    first = min(later, default=0)
    return first if first % kinds == part.cluster % kinds else None
