"""Decides in what form each tensor passes between engines and their readers, and extracts so.

What an engine computes in float16 leaves it as float16 if all that read it take that: operators
that say so, and engines of the same precision. No number changes by that, because the engine had
rounded it already. Where it can, it leaves channels-last, as convolutions make it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node

from ..builder.casts import COMPUTE_DTYPES, narrow_results
from ..graph.formats import (
    Form,
    fits_channels_last,
    half_arguments,
    has_unbacked_size,
    memory_format_of,
)
from ..graph.nodes import is_size
from ..partition.extract import Extracted, extract
from ..partition.partition import Cluster
from .adapt import result_of

__all__ = ["NarrowCrossings", "extract_all", "narrow_crossings"]

aten = torch.ops.aten

NarrowResults = Callable[[Cluster, Sequence[Node]], set[Node]]
"""Returns those of some outputs of a cluster that its engine computes in its narrow type."""


def extract_all(gm: GraphModule, clusters: Sequence[Cluster]) -> list[Extracted]:
    """Copy all clusters out of `gm`, and choose the forms of what passes between them."""
    division = _Division(gm, clusters)
    crossing = division.settled()
    return [
        extract(gm, cluster, division.takes(cluster, crossing), division.gives(cluster, crossing))
        for cluster in clusters
    ]


@dataclass(frozen=True, slots=True)
class NarrowCrossings:
    """The float32 values that pass boundaries in the narrow type of the engines around them.

    entering: for each cluster, what enters it so.
    derived:  the calls in PyTorch that return the narrow type, because they read it.
    """

    entering: Sequence[frozenset[Node]]
    derived: Mapping[Node, torch.dtype]


def narrow_crossings(
    gm: GraphModule, clusters: Sequence[Cluster], narrow: NarrowResults
) -> NarrowCrossings:
    """Return what `extract_all` lets pass in a narrow type, if engines compute `narrow` in it."""
    division = _Division(gm, clusters, narrow)
    crossing = division.settled()
    return NarrowCrossings(
        [_narrowed(division.takes(cluster, crossing)) for cluster in clusters],
        {
            node: fake.dtype
            for node, fake in crossing.derived.items()
            if isinstance(fake, torch.Tensor) and fake.dtype != node.meta["val"].dtype
        },
    )


def _narrowed(forms: Mapping[Node, Form]) -> frozenset[Node]:
    return frozenset(n for n, form in forms.items() if form.dtype != n.meta["val"].dtype)


@dataclass(frozen=True, slots=True)
class _Crossing:
    """The values whose form is another one than they were traced in.

    given:   what engines give.
    derived: what operators in PyTorch make of it.
    """

    given: Mapping[Node, torch.Tensor]
    derived: Mapping[Node, Any]


class _Division:
    """The clusters of a graph, and what is read outside of them."""

    def __init__(
        self, gm: GraphModule, clusters: Sequence[Cluster], narrow: NarrowResults | None = None
    ) -> None:
        self._gm, self._clusters = gm, clusters
        self._narrow = narrow or self._by_settings
        self._home = {node: cluster for cluster in clusters for node in cluster.nodes}

    def settled(self) -> _Crossing:
        """Return the most values that can change their form."""
        given = {n: fake for cluster in self._clusters for n, fake in self._offered(cluster)}
        while True:
            crossing = _Crossing(given, self._derived(given))
            refused = {node for node in given if not self._is_taken(node, crossing)}
            if not refused:
                return crossing
            given = {node: fake for node, fake in given.items() if node not in refused}

    def takes(self, cluster: Cluster, crossing: _Crossing) -> dict[Node, Form]:
        """Return the inputs of a cluster that enter in another form than they were traced in."""
        found: dict[Node, Form] = {}
        known = {**crossing.given, **crossing.derived}
        for node in cluster.nodes:
            for source in node.all_input_nodes:
                fake = known.get(source)
                is_input = source in known and self._home.get(source) is not cluster
                if is_input and isinstance(fake, torch.Tensor) and _reads(cluster, source, fake):
                    is_last = Form.of(fake).channels_last and _feeds_convolution(source, cluster)
                    found[source] = Form(fake.dtype, is_last)
        return found

    def gives(self, cluster: Cluster, crossing: _Crossing) -> dict[Node, Form]:
        """Return the outputs of a cluster that leave in another form than they were traced in."""
        own = {node: fake for node, fake in crossing.given.items() if self._home[node] is cluster}
        return {node: Form.of(fake) for node, fake in own.items()}

    def _offered(self, cluster: Cluster) -> list[tuple[Node, torch.Tensor]]:
        """Return what a cluster could give in another form, as far as it alone decides."""
        outputs = [node for node in cluster.nodes if self._could_be_taken(node)]
        wide = [node for node in outputs if node.meta["val"].dtype == torch.float32]
        narrow = self._narrow(cluster, wide)
        offered = []
        for node in outputs:
            fake = node.meta["val"]
            dtype = COMPUTE_DTYPES[cluster.settings.precision] if node in narrow else fake.dtype
            form = Form(dtype, self._is_wanted_channels_last(node, dtype))
            if form != Form.of(fake):
                with fake.fake_mode, torch.no_grad():
                    offered.append((node, fake.to(dtype, memory_format=form.memory_format)))
        return offered

    def _by_settings(self, cluster: Cluster, wanted: Sequence[Node]) -> set[Node]:
        return narrow_results(self._gm, cluster.nodes, wanted, cluster.settings)

    def _could_be_taken(self, node: Node) -> bool:
        """Return whether a node is read outside, and by such readers only that have a choice."""
        readers = self._outside_readers(node, self._home[node])
        return (
            bool(readers)
            and _is_plain(node.meta["val"])
            and all(reader in self._home or _has_choice(reader, node) for reader in readers)
        )

    def _is_wanted_channels_last(self, node: Node, dtype: torch.dtype) -> bool:
        if not fits_channels_last(node.meta["val"], dtype):
            return False
        readers = self._outside_readers(node, self._home[node])
        return any(
            _has_choice(reader, node)
            if reader not in self._home
            else _feeds_convolution(node, self._home[reader])
            for reader in readers
        )

    def _outside_readers(self, node: Node, cluster: Cluster) -> list[Node]:
        return [u for u in node.users if self._home.get(u) is not cluster and not is_size(u)]

    def _derived(self, given: Mapping[Node, torch.Tensor]) -> dict[Node, Any]:
        """Return the results of operators in PyTorch that take `given` and return another dtype."""
        known: dict[Node, Any] = dict(given)
        for node in self._gm.graph.nodes:
            if node.op != "call_function" or node in self._home or is_size(node):
                continue
            if not known.keys().isdisjoint(node.all_input_nodes):
                result = result_of(node, known)
                if result is not None and _has_other_dtype(result, node.meta["val"]):
                    known[node] = result
        return {node: value for node, value in known.items() if node not in given}

    def _is_taken(self, node: Node, crossing: _Crossing) -> bool:
        fake, known = crossing.given[node], {**crossing.given, **crossing.derived}
        for reader in self._outside_readers(node, self._home[node]):
            cluster = self._home.get(reader)
            if cluster is not None:
                if not _reads(cluster, node, fake):
                    return False
            elif result_of(reader, known) is None:
                return False
        return True


def _is_plain(value: Any) -> bool:
    """Return whether a fake value is a tensor whose memory can be in another form."""
    if not isinstance(value, FakeTensor) or has_unbacked_size(value):
        return False
    return memory_format_of(value) is not None


def _has_choice(reader: Node, node: Node) -> bool:
    """Return whether a call in PyTorch takes `node` in any layout, and in float16 too."""
    return any(node in argument for argument in half_arguments(reader))


def _reads(cluster: Cluster, node: Node, fake: torch.Tensor) -> bool:
    """Return whether a cluster takes `node` in the dtype of `fake`."""
    same = node.meta["val"].dtype == fake.dtype
    return same or COMPUTE_DTYPES.get(cluster.settings.precision) == fake.dtype


def _feeds_convolution(node: Node, cluster: Cluster) -> bool:
    members = set(cluster.nodes)
    return any(
        user in members and user.target == aten.convolution.default and user.args[0] is node
        for user in node.users
    )


def _has_other_dtype(a: Any, b: Any) -> bool:
    pairs = zip(_leaves(a), _leaves(b), strict=True)
    return any(x.dtype != y.dtype for x, y in pairs)


def _leaves(value: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
