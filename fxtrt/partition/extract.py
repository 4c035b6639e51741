"""Copies clusters out of a graph, each into a GraphModule of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from ..conversion.size_carriers import missing_sizes
from ..graph.formats import FORM, Form, memory_format_of
from ..graph.metadata import infer
from ..graph.nodes import is_size
from ..graph.weights import attribute
from ..passes.size_nodes import size_nodes
from .partition import Cluster

__all__ = ["Extracted", "extract"]

aten = torch.ops.aten

_AS_TRACED: Mapping[Node, Form] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Extracted:
    """A cluster as a GraphModule of its own, and the nodes that it takes and gives in its graph.

    The module may take and give other dtypes and layouts than these nodes have: its own fake values
    say which.

    originals: the nodes of the cluster by the names of their copies in the module, which also has
               casts of its own.
    """

    cluster: Cluster
    module: GraphModule
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    originals: Mapping[str, Node]

    @property
    def taken(self) -> list[Any]:
        """Return the fake value of each input, in the form in which the module takes it."""
        return [node.meta["val"] for node in self.module.graph.find_nodes(op="placeholder")]

    @property
    def given(self) -> list[torch.Tensor]:
        """Return the fake value of each output, in the form in which the module gives it."""
        results = pytree.tree_leaves(self.module.graph.output_node().args)
        return [node.meta["val"] for node in results]

    @property
    def forms(self) -> tuple[Form, ...]:
        """Return the forms of the tensors that pass the boundary, inputs first."""
        fakes = [*self.taken, *self.given]
        return tuple(Form.of(fake) for fake in fakes if isinstance(fake, torch.Tensor))

    def arguments(self, values: Mapping[Node, Any]) -> list[Any]:
        """Return the module's arguments, made of the values that its inputs have as traced."""
        pairs = zip(self.inputs, self.taken, strict=True)
        return [_in_form(values[node], fake) for node, fake in pairs]


def extract(
    gm: GraphModule,
    cluster: Cluster,
    takes: Mapping[Node, Form] = _AS_TRACED,
    gives: Mapping[Node, Form] = _AS_TRACED,
) -> Extracted:
    """Copy a cluster out of `gm`, with its weights, which are shared, and sizes of its tensors.

    Args:
        takes, gives: the inputs and outputs that pass the boundary in another form than they were
            traced in. Casts inside lead from it and to it.
    """
    members = set(cluster.nodes)
    inputs = _inputs(cluster, members)
    inputs = (*inputs, *_carried(gm, cluster, inputs))
    read: dict[Node, bool] = {}
    outputs = tuple(node for node in cluster.nodes if _is_read_outside(node, members, read))
    root, graph = torch.nn.Module(), Graph()
    copies: dict[Node, Node] = {}
    for node in inputs:
        copies[node] = _placeholder(graph, node, takes.get(node))
    for node in inputs:
        if node in takes:
            copies[node] = _as_traced(copies[node], node)
    for node in cluster.nodes:
        for source in _sizes_first(node, copies):
            if source.op == "get_attr":
                copies[source] = _copy_weight(gm, source, root, graph)
            else:
                copies[source] = graph.node_copy(source, copies.__getitem__)
    results = [_result(copies[node], gives.get(node)) for node in outputs]
    graph.output(tuple(results))
    graph.lint()
    module = GraphModule(root, graph, class_name=cluster.name)
    originals = {copies[node].name: node for node in cluster.nodes}
    return Extracted(cluster, module, inputs, outputs, originals)


def _placeholder(graph: Graph, node: Node, form: Form | None) -> Node:
    placeholder = graph.placeholder(node.name)
    placeholder.meta = dict(node.meta)
    if form is not None:
        fake = node.meta["val"]
        with fake.fake_mode, torch.no_grad():
            entering = fake.to(form.dtype, memory_format=form.memory_format)
        placeholder.meta |= {"val": entering, FORM: form}
    return placeholder


def _as_traced(placeholder: Node, node: Node) -> Node:
    """Add a cast of an input to the form that `node` was traced in."""
    fake = node.meta["val"]
    cast = _cast(placeholder, fake.dtype, memory_format_of(fake) or torch.contiguous_format)
    cast.meta = dict(node.meta)
    return cast


def _result(node: Node, form: Form | None) -> Node:
    return node if form is None else infer(_cast(node, form.dtype, form.memory_format), node)


def _cast(node: Node, dtype: torch.dtype, memory_format: torch.memory_format) -> Node:
    options: dict[str, Any] = {"dtype": dtype, "memory_format": memory_format}
    return node.graph.call_function(aten._to_copy.default, (node,), options)


def _in_form(value: Any, fake: Any) -> Any:
    if not isinstance(value, torch.Tensor) or Form.of(fake) == Form.of(value):
        return value
    return value.to(fake.dtype, memory_format=Form.of(fake).memory_format)


def _inputs(cluster: Cluster, members: set[Node]) -> tuple[Node, ...]:
    """Return the tensors and sizes that come from outside, in order of first use."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    inner: dict[Node, bool] = {}

    def visit(node: Node) -> None:
        for source in node.all_input_nodes:
            if source in members or source.op == "get_attr" or source in seen:
                continue
            seen.add(source)
            if _is_size_of(source, members, inner):
                visit(source)
            else:
                found[source] = None

    for node in cluster.nodes:
        visit(node)
    return tuple(found)


def _carried(gm: GraphModule, cluster: Cluster, inputs: Sequence[Node]) -> list[Node]:
    """Return the sizes that the cluster's engine needs and cannot compute from `inputs`."""
    needed = [
        value
        for node in cluster.nodes
        for source in (node, *filter(is_size, node.all_input_nodes))
        for value in pytree.tree_leaves(source.meta["val"])
    ]
    missing = missing_sizes([node.meta["val"] for node in inputs], needed)
    return [node for node in size_nodes(gm, missing) if node not in inputs]


def _sizes_first(node: Node, copies: dict[Node, Node]) -> list[Node]:
    """Return the weights and sizes that `node` reads and that are not copied yet, then `node`."""
    order: dict[Node, None] = {}

    def visit(current: Node) -> None:
        for source in current.all_input_nodes:
            if source not in copies and source not in order:
                visit(source)
        order[current] = None

    visit(node)
    return list(order)


def _is_size_of(node: Node, members: set[Node], known: dict[Node, bool]) -> bool:
    """Return whether a size depends on a tensor of the cluster, so that it is computed inside.

    Args:
        known: the answers so far; without them, sizes that share parts take exponential time.
    """
    if node not in known:
        known[node] = is_size(node) and any(
            source in members or _is_size_of(source, members, known)
            for source in node.all_input_nodes
        )
    return known[node]


def _is_read_outside(node: Node, members: set[Node], known: dict[Node, bool]) -> bool:
    """Return whether a tensor is needed outside; sizes that only the cluster reads do not count.

    Args:
        known: the answers so far.
    """
    if node not in known:
        known[node] = any(
            user not in members
            and not (is_size(user) and not _is_read_outside(user, members, known))
            for user in node.users
        )
    return known[node]


def _copy_weight(gm: GraphModule, node: Node, root: torch.nn.Module, graph: Graph) -> Node:
    name = str(node.target).replace(".", "_")
    root.register_buffer(name, attribute(gm, node).detach(), persistent=False)
    copy = graph.get_attr(name)
    copy.meta = dict(node.meta)
    return copy
