"""Adapts the readers of engines' outputs to the dtypes and layouts in which these come."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from ..graph.formats import FORM, half_arguments, memory_format_of
from ..graph.metadata import fake_result, infer, same_metadata
from ..graph.nodes import is_size
from ..partition.extract import Extracted

__all__ = ["adapt_readers", "result_of"]

aten = torch.ops.aten


def result_of(node: Node, changed: Mapping[Node, Any]) -> Any:
    """Return the fake result of a call in PyTorch whose inputs changed, or None if it refuses them.

    It refuses a tensor in another form where it does not say that it takes that, and a mixture of
    float32 and float16 where it takes one or the other.

    Args:
        changed: the fake values of those nodes that are in another form than they were traced in.
    """

    def value_of(source: Node) -> Any:
        return changed.get(source, source.meta["val"])

    if node.target is not operator.getitem:
        arguments = half_arguments(node)
        takers = [source for argument in arguments for source in argument]
        if any(source in changed and source not in takers for source in node.all_input_nodes):
            return None
        for argument in arguments:
            dtypes = {value_of(source).dtype for source in argument}
            if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float16}:
                return None
    return fake_result(node, value_of)


def adapt_readers(
    graph: Graph, calls: Mapping[Node, Extracted], traced: Mapping[Node, torch.Tensor]
) -> None:
    """Let every reader of an engine's output read it in its form, or cast it to that as traced.

    The partition chose forms that all readers take. But a cluster that did not build, or lost to
    PyTorch, leaves readers and outputs behind that were meant for an engine.

    Args:
        graph: a stitched graph in topological order.
        calls: its calls of engines.
        traced: the outputs of these calls, with the fake values that readers were traced with.
    """
    _Adaption(graph, calls, traced).run()


class _Adaption:
    def __init__(
        self, graph: Graph, calls: Mapping[Node, Extracted], traced: Mapping[Node, torch.Tensor]
    ) -> None:
        self._graph, self._calls = graph, calls
        self._items = frozenset(traced)
        self._traced: dict[Node, Any] = {
            node: value for node, value in traced.items() if not _same(node.meta["val"], value)
        }
        self._casts: dict[tuple[Node, torch.dtype], Node] = {}

    def run(self) -> None:
        for node in list(self._graph.nodes):
            if node in self._calls:
                self._visit_engine(node)
            elif node in self._items or is_size(node):
                continue
            elif not self._traced.keys().isdisjoint(node.all_input_nodes):
                self._visit_reader(node)

    def _visit_engine(self, node: Node) -> None:
        placeholders = self._calls[node].module.graph.find_nodes(op="placeholder")
        for index, placeholder in enumerate(placeholders):
            source = node.args[index]
            if not isinstance(source, Node):
                continue
            form = placeholder.meta.get(FORM)
            if form is None:
                node.update_arg(index, self._as_traced(source))
            elif source.meta["val"].dtype != form.dtype:
                node.update_arg(index, self._cast(source, form.dtype, form.memory_format))

    def _visit_reader(self, node: Node) -> None:
        before = node.meta.get("val")
        changed = {source: source.meta["val"] for source in self._traced}
        if node.op == "call_function" and result_of(node, changed) is not None:
            infer(node, node)
            if not _same(node.meta["val"], before):
                self._traced[node] = before
            return
        node.args = torch.fx.node.map_arg(node.args, self._as_traced)
        node.kwargs = torch.fx.node.map_arg(node.kwargs, self._as_traced)

    def _as_traced(self, node: Node) -> Node:
        if node not in self._traced:
            return node
        traced = self._traced[node]
        memory_format = memory_format_of(traced) or torch.contiguous_format
        return self._cast(node, traced.dtype, memory_format)

    def _cast(self, node: Node, dtype: torch.dtype, memory_format: torch.memory_format) -> Node:
        if (node, dtype) not in self._casts:
            options: dict[str, Any] = {"dtype": dtype, "memory_format": memory_format}
            with self._graph.inserting_after(node):
                cast = self._graph.call_function(aten._to_copy.default, (node,), options)
            self._casts[node, dtype] = infer(cast, node)
        return self._casts[node, dtype]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return same_metadata(a, b)
    if isinstance(a, (tuple, list)):
        return all(_same(x, y) for x, y in zip(a, b, strict=True))
    return True
