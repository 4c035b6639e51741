"""Find the dependencies between the nodes of a graph, and sort the nodes by them."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Mapping

from torch.fx import Graph, Node

__all__ = ["dependencies", "sort_topologically"]


def dependencies(graph: Graph) -> dict[Node, list[Node]]:
    """Return the nodes that each node must come after.

    These are its inputs. A node with side effects (an update of a buffer, say) must also come after
    everything that came before it, and before everything that came after it.
    """
    result: dict[Node, list[Node]] = {}
    barrier: Node | None = None
    since_barrier: list[Node] = []
    for node in graph.nodes:
        needed = list(node.all_input_nodes)
        if barrier is not None:
            needed.append(barrier)
        if node.op == "output" or (node.op not in ("placeholder", "get_attr") and node.is_impure()):
            needed += since_barrier
            barrier, since_barrier = node, []
        else:
            since_barrier.append(node)
        result[node] = list(dict.fromkeys(needed))
    return result


def sort_topologically(graph: Graph, needed: Mapping[Node, list[Node]]) -> None:
    """Move the nodes of `graph` into the order closest to theirs that satisfies `needed`.

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
