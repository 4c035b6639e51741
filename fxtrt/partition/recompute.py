"""Repairs the boundaries of clusters: computes cheap nodes again where that saves a cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.aliases import erase_dead, is_pure
from ..graph.nodes import computes, is_size
from .boundaries import PYTORCH, crossings

__all__ = ["Recomputation", "recomputations", "recompute"]

_REACH = 4
"""The longest chain that is computed again for one value: views and casts count 1, others 2."""

Use = tuple[Node, int]
"""A value, and a side that reads it."""


@dataclass(frozen=True, slots=True)
class Recomputation:
    """A node that is to be computed again on another side than its own.

    The copy reads those inputs that are computed again on the same side, and else the originals.

    side:    the number of a cluster, or `PYTORCH`.
    readers: the nodes on that side that will read the copy instead of the node. What is computed
             again only for the sake of another copy has none.
    """

    node: Node
    side: int
    readers: tuple[Node, ...] = ()


def recomputations(
    gm: GraphModule, sides: Mapping[Node, int], convertible: Callable[[Node, int], bool]
) -> tuple[Recomputation, ...]:
    """Find what is to be computed again on other sides, so that fewer values cross.

    A value that another side reads is computed again there if all that it needs is there already,
    or if two or more values can be computed from one that crosses in their stead. Views, casts and
    constants are computed again on any side, elementwise operators in clusters only, where they
    cost no launch. An operator that draws random numbers or writes never is, and nothing moves past
    a write. The graph stays as it is; `recompute` changes it.

    Args:
        sides: the cluster of each node that is in one; all else is on `PYTORCH`.
        convertible: whether the engine of a cluster could run a node.

    Returns:
        What to copy, each after the inputs that it shares a side with.
    """
    search = _Search(gm, sides, convertible)
    return search.ordered(search.wanted())


def recompute(gm: GraphModule, found: Sequence[Recomputation]) -> dict[Node, int]:
    """Copy nodes of `gm` to other sides, as `recomputations` found; return the copies' sides."""
    copies: dict[Use, Node] = {}
    for one in found:
        inputs = {n: copies.get((n, one.side), n) for n in one.node.all_input_nodes}
        with gm.graph.inserting_after(one.node):
            copies[one.node, one.side] = gm.graph.node_copy(one.node, inputs.__getitem__)
    # No reader changes before all copies are made: a copy has the inputs that its node had.
    for one in found:
        for reader in one.readers:
            reader.replace_input_with(one.node, copies[one.node, one.side])
    erase_dead(one.node for one in found if one.readers)
    return {copy: side for (_, side), copy in copies.items()}


class _Search:
    """Finds what is cheaper to compute again than to pass on."""

    def __init__(
        self,
        gm: GraphModule,
        sides: Mapping[Node, int],
        convertible: Callable[[Node, int], bool],
    ) -> None:
        self._gm = gm
        self._sides = sides
        self._convertible = convertible
        self._readers = crossings(gm, sides)
        self._epochs = _epochs(gm)
        self._results = set(gm.graph.output_node().all_input_nodes)
        self._known: dict[tuple[Node, int, int], frozenset[Node]] = {}
        self._newly_crossing: set[Use] = set()

    def wanted(self) -> list[Use]:
        """Return the values to compute again, and where."""
        found: list[Use] = []
        instead: defaultdict[Use, list[Use]] = defaultdict(list)
        for node in self._gm.graph.nodes:
            for side in sorted(self._readers.get(node, ())):
                if not self._may_be_replaced(node, side):
                    continue
                needs = self._needs_of_inputs(node, side, _REACH - _weight(node))
                if not needs:
                    found.append((node, side))
                elif len(needs) == 1 and not any(map(is_size, needs)):
                    instead[next(iter(needs)), side].append((node, side))
        for source, uses in instead.items():
            if len(uses) > 1:
                found += uses
                self._newly_crossing.add(source)
        return found

    def ordered(self, wanted: Sequence[Use]) -> tuple[Recomputation, ...]:
        """Return the recomputation of `wanted` and of what they need, inputs first."""
        replaced = set(wanted)
        found: dict[Use, Recomputation] = {}

        def visit(node: Node, side: int) -> None:
            use = (node, side)
            is_here = is_size(node) or self._is_there(node, side)
            if use in found or (use not in replaced and is_here):
                return
            for source in node.all_input_nodes:
                visit(source, side)
            readers = self._readers_on(node, side) if use in replaced else ()
            found[use] = Recomputation(node, side, tuple(readers))

        for use in wanted:
            visit(*use)
        return tuple(found.values())

    def _needs_of_inputs(self, node: Node, side: int, reach: int) -> frozenset[Node]:
        """Return what must cross to `side` before `node` can be computed there."""
        needs: frozenset[Node] = frozenset()
        for source in node.all_input_nodes:
            needs |= self._needs(source, node, side, reach)
        return needs

    def _needs(self, node: Node, reader: Node, side: int, reach: int) -> frozenset[Node]:
        """Return what must cross before `reader` has `node` on `side`.

        That is nothing, `node` itself, or what it can be computed from.
        """
        if self._is_there(node, side):
            return frozenset()
        same_epoch = self._epochs[node] == self._epochs[reader]
        left = reach - _weight(node)
        if left < 0 or not same_epoch or not self._is_cheap(node, side):
            return frozenset([node])
        key = (node, side, left)
        if key not in self._known:
            needs = self._needs_of_inputs(node, side, left)
            self._known[key] = needs if len(needs) < 2 else frozenset([node])
        return self._known[key]

    def _is_there(self, node: Node, side: int) -> bool:
        if node.op in ("placeholder", "get_attr"):
            return True
        if is_size(node):
            # An engine reads a size from a tensor, so its cluster must have one with that size.
            return all(
                self._is_there(source, side)
                and (side == PYTORCH or is_size(source) or self._sides.get(source) == side)
                for source in node.all_input_nodes
            )
        return (
            self._sides.get(node, PYTORCH) == side
            or side in self._readers.get(node, ())
            or (side == PYTORCH and node in self._results)
            or (node, side) in self._newly_crossing
        )

    def _may_be_replaced(self, node: Node, side: int) -> bool:
        if side == PYTORCH and (node in self._results or any(map(is_size, node.users))):
            return False
        epochs = {self._epochs[reader] for reader in self._readers_on(node, side)}
        return self._is_cheap(node, side) and epochs == {self._epochs[node]}

    def _is_cheap(self, node: Node, side: int) -> bool:
        if not isinstance(node.target, OpOverload) or not is_pure(node):
            return False
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            return False
        if side != PYTORCH and not self._convertible(node, side):
            return False
        makes = all(map(is_size, node.all_input_nodes))
        pointwise = torch.Tag.pointwise in node.target.tags
        return makes or not computes(node) or (side != PYTORCH and pointwise)

    def _readers_on(self, node: Node, side: int) -> list[Node]:
        return [
            user
            for user in node.users
            if user.op != "output" and not is_size(user) and self._sides.get(user, PYTORCH) == side
        ]


def _weight(node: Node) -> int:
    return 2 if computes(node) else 1


def _epochs(gm: GraphModule) -> dict[Node, int]:
    """Count the writes that come before each node."""
    writes = 0
    epochs = {}
    for node in gm.graph.nodes:
        epochs[node] = writes
        writes += node.op.startswith("call_") and node.is_impure()
    return epochs
