"""Turns a captured graph into plain data and constants, and back into a graph with the weights of
a given model."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from ..errors import ArtifactError
from ..graph.provenance import last_frame, module_path
from ..graph.sizes import hint
from ..graph.specs import Call
from ..graph.weights import attribute, named_tensors
from .expression_data import Expressions
from .node_data import (
    NodeRow,
    read_node,
    read_output,
    write_node,
)
from .symbol_data import Environment, SymbolReader
from .tree_data import (
    TreeData,
    read_call_tree,
    read_tree,
    write_tree,
)
from .typed_json import parse, typed
from .value_data import (
    ArgumentReader,
    MetaReader,
    ValueWriter,
)

__all__ = ["StoredGraph", "restore", "store"]


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """A captured graph without its weights.

    text:      the graph as JSON.
    constants: the tensors that are no weights of the module; `text` refers to them by number.
    """

    text: bytes
    constants: Sequence[torch.Tensor]


class _Data(TypedDict):
    """A graph in JSON.

    attributes:   the source of each: a weight by its name, or a constant by its number.
    names:        the names of the arguments of a call.
    takes, gives: the structures of arguments and results.
    example:      the leaves of the example call.
    """

    nodes: list[NodeRow]
    attributes: dict[str, tuple[str, str | int]]
    names: list[str]
    takes: TreeData
    gives: TreeData
    example: list[Any]
    environment: Environment
    expressions: list[Any]


def store(gm: GraphModule, module: torch.nn.Module, call: Call) -> StoredGraph:
    """Return the data that `restore` needs to make `gm` again as it is now.

    Args:
        module, call: the module and the example call that it was captured from.

    Raises:
        ArtifactError: a node cannot be written; the message names it.
    """
    writer, constants = ValueWriter(), list[torch.Tensor]()
    codegen = gm.graph._codegen
    if type(codegen) is not _PyTreeCodeGen or codegen.pytree_info.out_spec is None:
        raise ArtifactError(f"the graph is called through a {type(codegen).__name__}")
    leaves = pytree.tree_leaves((tuple(call.args), dict(call.kwargs)))
    nodes = [write_node(node, writer) for node in gm.graph.nodes]
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
    return StoredGraph(json.dumps(data).encode(), constants)


def restore(
    stored: StoredGraph, module: torch.nn.Module, trusted: Collection[str] | None = ()
) -> tuple[GraphModule, Call]:
    """Return the graph with the weights of `module`, and an example call of meta tensors.

    All data is checked before torch generates source code from the graph.

    Args:
        trusted: as in `read_target`.

    Raises:
        ArtifactError: the data does not fit the module, or is not what `store` writes.
    """
    try:
        data = typed(parse(stored.text, "the graph"), _Data, "the graph")
        attributes = _read_attributes(data, module, stored.constants)
        graph = _read_graph(data, attributes, trusted)
        gm = GraphModule(attributes, graph)
        gm.graph.lint()
        args, kwargs = pytree.tree_unflatten(_examples(gm, data), read_tree(data["takes"]))
    except ArtifactError:
        raise
    except Exception as error:  # Wrong data may fail anywhere, with any exception.
        kind = type(error).__name__
        raise ArtifactError(f"the graph cannot be made again ({kind}: {error})") from error
    return gm, Call(args, kwargs)


def _write_attributes(
    gm: GraphModule, module: torch.nn.Module, constants: list[torch.Tensor]
) -> dict[str, tuple[str, Any]]:
    """Return the source of each attribute: the name of a weight, or the number of a constant."""
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
            found[target] = "constant", len(constants)
            constants.append(value.detach())
    return found


def _place(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return a value that is equal for tensors with the same memory and the same form."""
    storage = tensor.untyped_storage()._cdata
    return storage, tensor.storage_offset(), tensor.dtype, tensor.shape, tensor.stride()


def _read_attributes(
    data: _Data, module: torch.nn.Module, constants: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    weights = dict(named_tensors(module))
    attributes: dict[str, torch.Tensor] = {}
    for target, (kind, name) in data["attributes"].items():
        if kind == "weight" and isinstance(name, str) and name in weights:
            attributes[target] = weights[name]
        elif kind == "constant" and isinstance(name, int) and 0 <= name < len(constants):
            attributes[target] = constants[name]
        else:
            raise ArtifactError(f"there is no {kind:.40} {name!r:.80}")
    return attributes


def _write_example(leaf: Any, writer: ValueWriter) -> Any:
    return {"input": None} if isinstance(leaf, torch.Tensor) else writer.value(leaf)


def _read_graph(
    data: _Data, attributes: dict[str, torch.Tensor], trusted: Collection[str] | None
) -> Graph:
    graph, nodes = Graph(), dict[str, Node]()
    symbols = SymbolReader(Expressions(data["expressions"]), data["environment"])
    arguments, meta = ArgumentReader(nodes), MetaReader(symbols)
    takes = read_call_tree(data["takes"], data["names"])
    gives = read_tree(data["gives"])
    if not data["nodes"]:
        raise ArtifactError("the graph has no nodes")
    *rows, last = data["nodes"]
    for row in rows:
        node = read_node(row, graph, arguments, attributes, trusted)
        nodes[node.name] = node
        if row.value:
            node.meta["val"] = meta.value(row.value[0])
        if node.op == "get_attr":
            _require_form(node, attributes[row.target])
        _read_source(node, row)
    read_output(last, graph, arguments, gives.num_leaves)
    if len(graph.find_nodes(op="placeholder")) != takes.num_leaves:
        raise ArtifactError(f"the graph does not take {takes.num_leaves} values")
    symbols.finish()
    graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(data["names"], takes, gives)))
    return graph


def _require_form(node: Node, tensor: torch.Tensor) -> None:
    """Refuse a node whose fake value has another form than its tensor."""
    fake = node.meta.get("val")
    if (
        not isinstance(fake, torch.Tensor)
        or not all(isinstance(size, int) for size in fake.shape)
        or (fake.shape, fake.dtype) != (tensor.shape, tensor.dtype)
    ):
        raise ArtifactError(f"{node.name} is not of the form of its attribute")


def _read_source(node: Node, row: NodeRow) -> None:
    """Set the source line and module path of a node, as `write_node` read them."""
    if row.frame:
        node.meta["stack_trace"] = row.frame
    if row.path:
        node.meta["nn_module_stack"] = {"": (row.path, "")}
    # torch may write these texts between such quotes into the source code that it compiles.
    is_quoted = '"""' in row.frame + row.path
    if is_quoted or (last_frame(node), module_path(node)) != (row.frame, row.path):
        raise ArtifactError(f"{node.name} comes from {row.frame!r:.80} in {row.path!r:.80}")


def _examples(gm: GraphModule, data: _Data) -> list[Any]:
    """Return the leaves of the example call."""
    placeholders = gm.graph.find_nodes(op="placeholder")
    reader = ArgumentReader({})
    return [
        _blank(node) if leaf == {"input": None} else reader.value(leaf)
        for node, leaf in zip(placeholders, data["example"], strict=True)
    ]


def _blank(node: Node) -> torch.Tensor:
    fake = node.meta.get("val")
    if not isinstance(fake, torch.Tensor):
        raise ArtifactError(f"{node.name} is no tensor, which its example is")
    # The sizes are the example's numbers: symbols would gain relations here.
    return torch.empty([hint(size) for size in fake.shape], dtype=fake.dtype, device="meta")
