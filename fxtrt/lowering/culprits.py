"""Decides which nodes leave a cluster that does not build, so that the rest is built again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from torch.fx import GraphModule, Node

from ..builder.build import BuildFailure
from ..builder.casts import with_precision
from ..conversion.convert import convert
from ..engines.target import Target
from ..errors import BuildError, ConversionError
from ..graph.flops import flops
from ..graph.nodes import producer
from ..partition.extract import Extracted, extract
from ..partition.partition import Cluster
from ..settings import Settings
from .delta_debugging import smallest_failing
from .named_nodes import named_nodes

__all__ = ["HEAVY_SHARE", "Culprits"]

HEAVY_SHARE = 0.01
"""The share of a graph's FLOPs above which nodes are not given up before halving narrowed them."""

WhyNotBuilt = Callable[[Settings, Sequence[Node]], BuildFailure | None]
"""Builds some nodes of the graph with these settings, and returns the error if that fails."""


class Culprits:
    """Finds the nodes that a cluster does not build with.

    Args:
        gm: the graph that the clusters are of.
        why_not_built: makes the builds that halving asks for.
    """

    def __init__(self, gm: GraphModule, target: Target, why_not_built: WhyNotBuilt) -> None:
        self._gm, self._target, self._why_not_built = gm, target, why_not_built
        self._all_flops = _sum_flops(gm.graph.nodes)

    def of(
        self, failed: Extracted, error: BuildFailure, *, by_name: bool
    ) -> tuple[list[Node], BuildFailure]:
        """Return the nodes that must leave a cluster, and the error that they leave for.

        With `on_build_failure="fallback"` these are the nodes that the error names. If it names
        none, a cluster with more than 1 % of the graph's FLOPs is halved, and all of a smaller one
        leaves. If that much lies between the ends of a range that the error names, the range is
        halved too, since the fault is seldom in all of it. "bisect" halves always. None are
        returned for a plan that was built and does not load, as no part of it would load.

        Args:
            by_name: whether the names in the error count. They are not tried without end.
        """
        nodes = failed.cluster.nodes
        halves = self._target.settings.on_build_failure == "bisect"
        built, _ = with_precision(failed.module, failed.cluster.settings)
        named = named_nodes(error, nodes, failed.originals, built)
        if by_name and named.nodes and not halves and not self._is_heavy(named.between):
            return self._with_alike(failed, list(named.nodes), error), error
        about_nodes = isinstance(error, BuildError | ConversionError)
        if halves or (about_nodes and self._is_heavy(nodes)):
            found, cause = self._halved(failed, named.nodes, error)
            return self._with_alike(failed, found, cause), cause
        return list(nodes) if about_nodes else [], error

    def _is_heavy(self, nodes: Iterable[Node]) -> bool:
        return _sum_flops(nodes) > HEAVY_SHARE * self._all_flops

    def _halved(
        self, failed: Extracted, named: Sequence[Node], error: BuildFailure
    ) -> tuple[list[Node], BuildFailure]:
        """Return a small part that fails; one of the named nodes if these fail alone."""
        why_not = partial(self._why_not_built, failed.cluster.settings)
        whole: Sequence[Node] = failed.cluster.nodes
        if 0 < len(named) < len(whole):
            alone = why_not(named)
            if isinstance(alone, type(error)):
                whole, error = named, alone
        return smallest_failing(whole, error, why_not)

    def _with_alike(self, failed: Extracted, found: list[Node], error: BuildFailure) -> list[Node]:
        """Add the calls of the same operator whose converter fails too, which costs no build."""
        if not isinstance(error, ConversionError):
            return found
        targets = {node.target for node in found if producer(node) is node}
        calls = {
            node
            for node in failed.cluster.nodes
            if node.target in targets
            and node not in found
            and not self._converts(node, failed.cluster.settings)
        }
        return [node for node in failed.cluster.nodes if producer(node) in {*found, *calls}]

    def _converts(self, call: Node, settings: Settings) -> bool:
        results = [user for user in call.users if producer(user) is call]
        part = extract(self._gm, Cluster("part", (call, *results), settings))
        built, _ = with_precision(part.module, settings)
        try:
            convert(built, self._target.backend.features)
        except ConversionError:
            return False
        return True


def _sum_flops(nodes: Iterable[Node]) -> int:
    return sum(map(flops, nodes))
