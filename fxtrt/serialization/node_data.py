"""Turns a node of a graph into a row of plain data, and back into a node that is safe to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
from torch._ops import OpOverload
from torch.fx import Graph, Node

from ..errors import ArtifactError
from ..graph.provenance import last_frame, module_path
from ..registry import bind
from .allowed_operators import (
    WRITES_OWN,
    read_target,
    write_target,
)
from .tree_data import SHADOWED, is_name
from .value_data import ArgumentReader, ValueWriter

__all__ = ["NodeRow", "read_node", "read_output", "write_node"]

_TRAINING = ("training", "train", "use_input_stats")
"""The names of the flag that makes a norm compute statistics of its input."""
_WRITE_NOTHING = ("_functional", "_no_training")
"""The ends of the names of norms that have no such flag, or return new statistics."""

Op = Literal["placeholder", "get_attr", "call_function", "output"]


class NodeRow(NamedTuple):
    """A node in JSON.

    args, kwargs: what `ValueWriter` writes for the arguments.
    value:        a list of what it writes for `meta["val"]`, or an empty list without one.
    frame, path:  the answers of `last_frame` and `module_path`.
    """

    name: str
    op: Op
    target: str
    args: Any
    kwargs: Any
    value: list[Any]
    frame: str
    path: str


def write_node(node: Node, writer: ValueWriter) -> NodeRow:
    """Return the row of a node.

    Raises:
        ArtifactError: the node cannot be written; the message names it.
    """
    try:
        if node.op not in get_args(Op):
            raise ArtifactError(f"it is a {node.op}")
        target = write_target(node.target) if node.op == "call_function" else str(node.target)
        value = [writer.value(node.meta["val"])] if "val" in node.meta else []
        args, kwargs = writer.value(tuple(node.args)), writer.value(dict(node.kwargs))
    except ArtifactError as error:
        raise ArtifactError(f"{node.name}: {error}") from error
    frame, path = last_frame(node), module_path(node)
    return NodeRow(node.name, cast(Op, node.op), target, args, kwargs, value, frame, path)


def read_node(
    row: NodeRow,
    graph: Graph,
    reader: ArgumentReader,
    attributes: Mapping[str, torch.Tensor],
    trusted: Collection[str] | None,
) -> Node:
    """Append a node to `graph`; all its texts that become source code are plain names.

    Args:
        attributes: the attributes that a `get_attr` may read.
        trusted: as in `read_target`.

    Raises:
        ArtifactError: the row is not one that `write_node` writes.
    """
    args, kwargs = _arguments(row, reader)
    called: Any = row.target
    if row.op == "call_function":
        if trusted is not None and _writes_own(args, attributes):
            trusted = {*trusted, WRITES_OWN}
        called = read_target(row.target, trusted)
        if isinstance(called, OpOverload):
            _require_bound(row, called, args, kwargs)
    elif row.op == "output":
        raise ArtifactError(f"{row.name!r:.40} is an output before the end")
    elif args or kwargs:
        raise ArtifactError(f"{row.name!r:.40} is a {row.op} with arguments")
    elif row.op == "placeholder" and (not is_name(row.target) or row.target in SHADOWED):
        raise ArtifactError(f"the placeholder {row.target!r:.80} has no name of its own")
    elif row.op == "get_attr" and not (row.target in attributes and _is_path(row.target)):
        raise ArtifactError(f"there is no attribute {row.target!r:.80}")
    return _create(row, graph, called, args, kwargs)


def read_output(row: NodeRow, graph: Graph, reader: ArgumentReader, count: int) -> None:
    """Append the output of `graph`, which returns `count` values.

    Raises:
        ArtifactError: the row is no output, or returns another number of values.
    """
    args, kwargs = _arguments(row, reader)
    gives = args[0] if len(args) == 1 else None
    if row.op != "output" or row.target != "output" or kwargs:
        raise ArtifactError("the graph does not end in an output")
    if not isinstance(gives, (list, tuple)) or len(gives) != count:
        raise ArtifactError(f"the graph does not give {count} values")
    _create(row, graph, "output", args, {})


def _create(
    row: NodeRow, graph: Graph, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Node:
    if not is_name(row.name):
        raise ArtifactError(f"the name {row.name!r:.80} of a node is no identifier")
    node = graph.create_node(row.op, called, args, kwargs, row.name)
    if node.name != row.name:
        raise ArtifactError(f"there is a second {row.name:.80}, or it is no name")
    return node


def _arguments(row: NodeRow, reader: ArgumentReader) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = reader.value(row.args), reader.value(row.kwargs)
    if not isinstance(args, tuple) or not isinstance(kwargs, dict):
        raise ArtifactError(f"the arguments of {row.name!r:.40} are no tuple and dict")
    if wrong := [name for name in kwargs if not is_name(name)]:
        raise ArtifactError(f"the argument {wrong[0]!r:.80} is no identifier")
    return args, kwargs


def _require_bound(
    row: NodeRow, target: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Refuse a call that does not fit the operator's schema."""
    arguments = target._schema.arguments
    by_position = [argument.name for argument in arguments if not argument.kwarg_only]
    given = {*by_position[: len(args)], *kwargs}
    missing = {a.name for a in arguments if not a.has_default_value()} - given
    known = {argument.name for argument in arguments}
    twice = kwargs.keys() & set(by_position[: len(args)])
    if len(args) > len(by_position) or kwargs.keys() - known or missing or twice:
        raise ArtifactError(f"{row.name:.80} calls {row.target} with other arguments than it takes")
    if _writes_statistics(target, bind(target, args, kwargs)):
        raise ArtifactError(f"{row.name:.80} calls {row.target}, which writes to running_mean")


def _writes_statistics(target: OpOverload, arguments: Mapping[str, Any]) -> bool:
    """Return whether a norm writes to its running statistics, even if its schema hides that."""
    name = target._schema.name
    if not isinstance(arguments.get("running_mean"), Node) or name.endswith(_WRITE_NOTHING):
        return False
    flags = [arguments[flag] for flag in _TRAINING if flag in arguments]
    return flags != [False]


def _is_path(target: str) -> bool:
    """Return whether a text is a path of attributes without dunder names."""
    parts = target.split(".")
    return all(
        (part.isidentifier() or (part.isascii() and part.isdigit())) and not part.startswith("__")
        for part in parts
    )


def _writes_own(args: tuple[Any, ...], attributes: Mapping[str, torch.Tensor]) -> bool:
    """Return whether the first argument is a buffer or an input, which a model may write to."""
    first = args[0] if args else None
    if not isinstance(first, Node) or first.op not in ("placeholder", "get_attr"):
        return False
    return not isinstance(attributes.get(str(first.target)), torch.nn.Parameter)
