"""Find which nodes of a graph write to or share storages, and erase nodes that nobody needs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..registry import arguments_of
from .weights import weight

__all__ = ["Aliases", "erase_dead", "is_pure", "written_inputs"]


def is_pure(node: Node) -> bool:
    """Return whether an unused node may be erased: it has no side effect, such as a random draw."""
    return node.op == "get_attr" or (node.op == "call_function" and not node.is_impure())


def erase_dead(nodes: Iterable[Node]) -> bool:
    """Erase those of `nodes` that are pure and unused, then what only they used.

    Returns:
        Whether any node was erased.
    """
    pending = list(dict.fromkeys(nodes))
    erased: set[Node] = set()
    while pending:
        node = pending.pop()
        if node in erased or node.users or not is_pure(node):
            continue
        inputs = node.all_input_nodes
        node.graph.erase_node(node)
        erased.add(node)
        pending.extend(inputs)
    return bool(erased)


class Aliases:
    """The storages of a graph: which values share one, which are written, which leave the graph.

    A storage is represented by its root: the input, weight or call that made it.
    """

    def __init__(self, gm: GraphModule) -> None:
        self._parent: dict[Node, Node] = {}
        self._share_weights(gm)
        for node in gm.graph.nodes:
            for source in _alias_sources(node):
                self._join(node, source)
        output = gm.graph.output_node()
        self._returned = set(output.all_input_nodes)
        self._escaping = {self.root(node) for node in output.all_input_nodes}
        self._written = {self.root(n) for node in gm.graph.nodes for n in written_inputs(node)}

    def root(self, node: Node) -> Node:
        """Return the node that made the storage of `node`."""
        while (parent := self._parent.get(node, node)) is not node:
            self._parent[node] = self._parent.get(parent, parent)
            node = parent
        return node

    def is_written(self, node: Node) -> bool:
        """Return whether anything in the graph writes to the storage of `node`."""
        return self.root(node) in self._written

    def escapes(self, node: Node) -> bool:
        """Return whether the storage of `node` is that of an output."""
        return self.root(node) in self._escaping

    def is_external(self, node: Node) -> bool:
        """Return whether the storage of `node` is that of an input or a weight."""
        return self.root(node).op in ("placeholder", "get_attr")

    def is_returned(self, node: Node) -> bool:
        """Return whether `node` itself is an output."""
        return node in self._returned

    def replace(self, node: Node, source: Node) -> None:
        """Record that every user of `node` now reads `source`."""
        if self.escapes(node):
            self._escaping.add(self.root(source))
        if node in self._returned:
            self._returned.add(source)
        self._join(node, source)

    def _join(self, node: Node, source: Node) -> None:
        a, b = self.root(node), self.root(source)
        if a is b:
            return
        # An input or a weight stays the root: `is_external` asks for it.
        if a.op in ("placeholder", "get_attr"):
            a, b = b, a
        self._parent[a] = b

    def _share_weights(self, gm: GraphModule) -> None:
        """Give tied weights, and several reads of one weight, one root."""
        first: dict[object, Node] = {}
        for node in gm.graph.find_nodes(op="get_attr"):
            tensor = weight(gm, node)
            key = node.target if tensor is None else tensor.untyped_storage()._cdata
            self._parent[node] = first.setdefault(key, node)


def _alias_sources(node: Node) -> list[Node]:
    """Return the arguments that the result may share its storage with."""
    if node.op != "call_function":
        return []
    if node.target is operator.getitem:
        return node.all_input_nodes
    if not isinstance(node.target, OpOverload):
        return []
    schema = node.target._schema
    if all(result.alias_info is None for result in schema.returns):
        # In evaluation, dropouts return their input itself, which their schemas do not declare.
        return node.all_input_nodes if "dropout" in schema.name else []
    return _arguments(node, node.target, lambda argument: argument.alias_info is not None)


def written_inputs(node: Node) -> list[Node]:
    """Return the arguments that a node writes to."""
    if node.op != "call_function":
        return []
    if not isinstance(node.target, OpOverload):
        return node.all_input_nodes if node.is_impure() else []
    if not node.target._schema.is_mutable:
        return []
    if arguments_of(node).get("training") is False:
        # The schemas of batch norms declare their statistics mutable; only training writes them.
        return []
    return _arguments(
        node,
        node.target,
        lambda argument: argument.alias_info is not None and argument.alias_info.is_write,
    )


def _arguments(node: Node, target: OpOverload, wanted: Callable[[Any], bool]) -> list[Node]:
    """Return the nodes in those arguments whose schema entries are `wanted`."""
    values = arguments_of(node)
    chosen = [values[argument.name] for argument in target._schema.arguments if wanted(argument)]
    return [n for n in torch.utils._pytree.tree_leaves(chosen) if isinstance(n, Node)]
