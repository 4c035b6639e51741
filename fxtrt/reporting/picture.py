"""Draws a graph for a report: its calls with their modules, and what flows between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.nodes import is_size
from ..graph.provenance import module_path
from ..partition.partition import Cluster

__all__ = ["Picture", "PictureNode", "picture", "target_name"]

_MOST_NODES = 20_000


@dataclass(frozen=True, slots=True)
class PictureNode:
    """A call that gives tensors, or an input.

    cluster:   the index of its `ClusterRow`, or None.
    rejection: the index of its `RejectionRow`, or None.
    """

    name: str
    target: str
    module: str
    cluster: int | None = None
    rejection: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """The nodes and edges of one graph.

    nodes:   in an order in which the graph can run.
    edges:   pairs of indices into `nodes`; the second node reads the first.
    dropped: how many nodes are left out, because a picture has a largest size.
    """

    nodes: tuple[PictureNode, ...]
    edges: tuple[tuple[int, int], ...]
    dropped: int = 0

    def shifted(self, clusters: int, rejections: int) -> Picture:
        """Add `clusters` to the indices of clusters, and `rejections` to those of rejections."""
        return replace(
            self,
            nodes=tuple(
                replace(
                    node,
                    cluster=None if node.cluster is None else node.cluster + clusters,
                    rejection=None if node.rejection is None else node.rejection + rejections,
                )
                for node in self.nodes
            ),
        )


def picture(gm: GraphModule, clusters: Sequence[Cluster], rejected: Mapping[Node, int]) -> Picture:
    """Draw a graph before it is stitched.

    Args:
        rejected: the index of each rejected node's row.
    """
    cluster_of = {node: i for i, cluster in enumerate(clusters) for node in cluster.nodes}
    drawn = [node for node in gm.graph.nodes if _is_drawn(node)]
    index = {node: i for i, node in enumerate(islice(drawn, _MOST_NODES))}
    nodes = tuple(
        PictureNode(
            node.name,
            "input" if node.op == "placeholder" else target_name(node),
            module_path(node),
            cluster_of.get(node),
            rejected.get(node),
        )
        for node in index
    )
    edges = tuple(
        (index[source], i)
        for node, i in index.items()
        for source in node.all_input_nodes
        if source in index
    )
    return Picture(nodes, edges, len(drawn) - len(nodes))


def target_name(node: Node) -> str:
    """Name what a node calls: an overload as "aten.relu.default", a function by its name."""
    if isinstance(node.target, OpOverload):
        return str(node.target)
    return getattr(node.target, "__name__", str(node.target))


def _is_drawn(node: Node) -> bool:
    return node.op not in ("get_attr", "output") and not is_size(node)
