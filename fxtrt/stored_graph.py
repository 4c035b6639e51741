"""Turns a captured graph into plain data and the constants in it, and back into a graph of the
weights of a model that lives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from .calls import Call
from .errors import ArtifactError
from .graph import attribute
from .shapes import hint
from .source import last_frame, module_path
from .stored_symbols import SymbolReader
from .stored_values import (
    ValueReader,
    ValueWriter,
    read_target,
    read_tree,
    write_target,
    write_tree,
)
from .weights import named_tensors

__all__ = ["StoredGraph", "restore", "store"]

_OPS = ("placeholder", "get_attr", "call_function", "output")


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """A captured graph, apart from the weights.

    text:      JSON.
    constants: tensors of the graph that are no weights of its module, which `text` numbers.
    """

    text: str
    constants: Sequence[torch.Tensor]


def store(gm: GraphModule, module: torch.nn.Module, call: Call) -> StoredGraph:
    """What is needed to make `gm` again, as it is now.

    Args:
        module, call: what it was captured from.

    Raises:
        ArtifactError: something in it cannot be written; names the node.
    """
    writer, constants = ValueWriter(), list[torch.Tensor]()
    codegen = gm.graph._codegen
    if type(codegen) is not _PyTreeCodeGen or codegen.pytree_info.out_spec is None:
        raise ArtifactError(f"the graph is called through a {type(codegen).__name__}")
    leaves = pytree.tree_leaves((tuple(call.args), dict(call.kwargs)))
    nodes = [_write_node(node, writer) for node in gm.graph.nodes]
    data = {
        "nodes": nodes,
        "attributes": _write_attributes(gm, module, constants),
        "names": list(codegen.pytree_info.orig_args),
        "takes": write_tree(codegen.pytree_info.in_spec),
        "gives": write_tree(codegen.pytree_info.out_spec),
        "example": [_write_example(leaf, writer) for leaf in leaves],
        "environment": writer.symbols.environment(),
        "expressions": writer.symbols.table,
    }
    return StoredGraph(json.dumps(data), constants)


def restore(stored: StoredGraph, module: torch.nn.Module) -> tuple[GraphModule, Call]:
    """The graph with the weights of `module`, and an example call whose tensors are on no device.

    Raises:
        ArtifactError: the data does not fit the module, or is none of `store`.
    """
    try:
        data = json.loads(stored.text)
        graph = _read_graph(data)
        tensors = dict(named_tensors(module))
        attributes = {
            target: tensors[name] if kind == "weight" else stored.constants[name]
            for target, (kind, name) in data["attributes"].items()
        }
        gm = GraphModule(attributes, graph)
        gm.graph.lint()
        args, kwargs = pytree.tree_unflatten(_examples(gm, data), read_tree(data["takes"]))
    except ArtifactError:
        raise
    except Exception as error:  # Whatever is wrong with data shows in its own way.
        kind = type(error).__name__
        raise ArtifactError(f"the graph cannot be made again ({kind}: {error})") from error
    return gm, Call(args, kwargs)


def _write_node(node: Node, writer: ValueWriter) -> list[Any]:
    try:
        if node.op not in _OPS:
            raise ArtifactError(f"it is a {node.op}")
        target = write_target(node.target) if node.op == "call_function" else str(node.target)
        value = [writer.value(node.meta["val"])] if "val" in node.meta else []
        args, kwargs = writer.value(tuple(node.args)), writer.value(dict(node.kwargs))
    except ArtifactError as error:
        raise ArtifactError(f"{node.name}: {error}") from error
    return [node.name, node.op, target, args, kwargs, value, last_frame(node), module_path(node)]


def _write_attributes(
    gm: GraphModule, module: torch.nn.Module, constants: list[torch.Tensor]
) -> dict[str, tuple[str, Any]]:
    """Where each attribute of the graph comes from: a weight by its name, a constant by number."""
    places = {_place(tensor): name for name, tensor in reversed(named_tensors(module))}
    found: dict[str, tuple[str, Any]] = {}
    for node in gm.graph.find_nodes(op="get_attr"):
        target, value = str(node.target), attribute(gm, node)
        if not isinstance(value, torch.Tensor):
            raise ArtifactError(f"{node.name}: it is a {type(value).__name__}, not a tensor")
        if target in found:
            continue
        if (name := places.get(_place(value))) is not None:
            found[target] = "weight", name
        else:
            if any(not s and n > 1 for n, s in zip(value.shape, value.stride(), strict=True)):
                raise ArtifactError(f"{node.name}: it is an expanded tensor")
            found[target] = "constant", len(constants)
            constants.append(value.detach())
    return found


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The same for tensors that are the same memory in the same form."""
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride()


def _write_example(leaf: Any, writer: ValueWriter) -> Any:
    return {"input": None} if isinstance(leaf, torch.Tensor) else writer.value(leaf)


def _read_graph(data: Mapping[str, Any]) -> Graph:
    graph, nodes = Graph(), dict[str, Node]()
    symbols = SymbolReader(data["expressions"], data["environment"])
    reader = ValueReader(symbols, nodes)
    for name, op, target, args, kwargs, value, frame, path in data["nodes"]:
        if op not in _OPS:
            raise ArtifactError(f"{name} is a {op}")
        called = read_target(target) if op == "call_function" else target
        node = graph.create_node(op, called, reader.value(args), reader.value(kwargs), name)
        if node.name != name:
            raise ArtifactError(f"there is a second {name}, or it is no name")
        nodes[name] = node
        if value:
            node.meta["val"] = reader.value(value[0])
        if frame:
            node.meta["stack_trace"] = frame
        if path:
            node.meta["nn_module_stack"] = {"": (path, "")}
    symbols.finish()
    info = _PyTreeInfo(data["names"], read_tree(data["takes"]), read_tree(data["gives"]))
    graph.set_codegen(_PyTreeCodeGen(info))
    return graph


def _examples(gm: GraphModule, data: Mapping[str, Any]) -> list[Any]:
    """The leaves of the example call."""
    placeholders = gm.graph.find_nodes(op="placeholder")
    reader = ValueReader(SymbolReader((), {"symbols": []}), {})
    return [
        _blank(node.meta["val"]) if leaf == {"input": None} else reader.value(leaf)
        for node, leaf in zip(placeholders, data["example"], strict=True)
    ]


def _blank(fake: torch.Tensor) -> torch.Tensor:
    # Of the example's numbers: to make one of symbols would add relations between them.
    return torch.empty([hint(size) for size in fake.shape], dtype=fake.dtype, device="meta")
