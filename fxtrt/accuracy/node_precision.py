"""Tell in which float type the engines of a graph compute each node, without building any."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..builder.casts import COMPUTE_DTYPES, keeps_float32
from ..lowering.forms import narrow_crossings
from ..partition.partition import Cluster
from ..passes.insert_casts import narrow_among
from ..settings import Settings

__all__ = ["Narrow", "NodePrecision", "rounds"]

aten = torch.ops.aten

_EXACT = {
    aten.relu,
    aten.relu6,
    aten.hardtanh,
    aten.clamp,
    aten.maximum,
    aten.minimum,
    aten.max_pool1d,
    aten.max_pool2d,
    aten.max_pool2d_with_indices,
    aten.max_pool3d,
    aten.upsample_nearest2d,
    aten.cat,
    aten.stack,
    aten.clone,
    aten.reshape,
    aten._unsafe_view,
    aten.flatten,
    aten.constant_pad_nd,
    aten.pad,
    aten.pixel_shuffle,
    aten.channel_shuffle,
}
"""The operators whose results are numbers of their inputs, so that they round nothing anew."""


@dataclass(frozen=True, slots=True)
class Narrow:
    """The nodes that are computed in a narrow float type.

    inside:  the nodes that engines compute in it, with the type.
    derived: the nodes in PyTorch that return it, because engines give them their inputs in it.
    """

    inside: Mapping[Node, torch.dtype]
    derived: Mapping[Node, torch.dtype]


class NodePrecision:
    """The clusters of a graph, and what their settings alone keep in float32."""

    def __init__(self, gm: GraphModule, clusters: Sequence[Cluster]) -> None:
        """Read the settings of clusters.

        Args:
            gm: a graph that was normalized and divided.
        """
        self._gm = gm
        dtypes = [COMPUTE_DTYPES.get(cluster.settings.precision) for cluster in clusters]
        pairs = zip(clusters, dtypes, strict=True)
        narrow = [(c, d) for c, d in pairs if d is not None and d != torch.float32]
        self._clusters = [cluster for cluster, _ in narrow]
        self._dtypes = [dtype for _, dtype in narrow]
        self._keeps = {
            cluster.name: _remembered(gm, cluster.settings, dtype) for cluster, dtype in narrow
        }

    def narrow(self, kept: Collection[Node] = ()) -> Narrow:
        """Return what is narrow if `keep_fp32` also names the nodes `kept`."""
        kept = frozenset(kept)

        def inside(
            cluster: Cluster, wanted: Sequence[Node], entering: Collection[Node] = ()
        ) -> set[Node]:
            own = self._keeps[cluster.name]
            return narrow_among(wanted, cluster.nodes, lambda n: n in kept or own(n), entering)

        crossings = narrow_crossings(self._gm, self._clusters, inside)
        found: dict[Node, torch.dtype] = {}
        rows = zip(self._clusters, self._dtypes, crossings.entering, strict=True)
        for cluster, dtype, entering in rows:
            nodes = inside(cluster, cluster.nodes, entering)
            found |= {node: dtype for node in cluster.nodes if node in nodes}
        return Narrow(found, crossings.derived)


def rounds(node: Node) -> bool:
    """Return whether a narrow call rounds, so that it can be to blame for a wrong result."""
    target = node.target
    if not isinstance(target, OpOverload) or target.overloadpacket in _EXACT:
        return False
    return all(result.alias_info is None for result in target._schema.returns)


def _remembered(gm: GraphModule, settings: Settings, dtype: torch.dtype) -> Callable[[Node], bool]:
    # To read the numbers of all weights takes longer than everything else here.
    return cache(keeps_float32(gm, settings, dtype))
