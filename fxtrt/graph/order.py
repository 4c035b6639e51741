"""What several stages need to know of a graph: its weights, dependencies and a valid order."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Mapping

from torch.fx import Graph, Node

__all__ = ["dependencies", "sort_topologically"]


def dependencies(graph: Graph) -> dict[Node, list[Node]]:
    """What each node must come after: its inputs and, around a node with side effects, the rest.

    A node that writes (an update of a buffer, say) stays behind everything that came before it and
    ahead of everything that came after it.
    """
    result: dict[Node, list[Node]] = {}
    barrier: Node | None = None
    since: list[Node] = []
    for node in graph.nodes:
        needed = list(node.all_input_nodes)
        if barrier is not None:
            needed.append(barrier)
        if node.op == "output" or (node.op not in ("placeholder", "get_attr") and node.is_impure()):
            needed += since
            barrier, since = node, []
        else:
            since.append(node)
        result[node] = list(dict.fromkeys(needed))
    return result


def sort_topologically(graph: Graph, needed: Mapping[Node, list[Node]]) -> None:
    """Move the nodes of `graph` into an order that fits `needed`, as close to theirs as it can.

    Raises:
        ValueError: there is a cycle.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    waiting = {node: len(needed[node]) for node in position}
    users: defaultdict[Node, list[Node]] = defaultdict(list)
    for node, inputs in needed.items():
        for source in inputs:
            users[source].append(node)
    ready = [(i, node.name) for node, i in position.items() if not waiting[node]]
    by_name = {node.name: node for node in position}
    heapq.heapify(ready)
    order: list[Node] = []
    while ready:
        node = by_name[heapq.heappop(ready)[1]]
        order.append(node)
        for user in users[node]:
            waiting[user] -= 1
            if not waiting[user]:
                heapq.heappush(ready, (position[user], user.name))
    if len(order) != len(position):
        raise ValueError(f"the graph has a cycle through {len(position) - len(order)} nodes")
    for previous, node in itertools.pairwise(order):
        previous.append(node)
