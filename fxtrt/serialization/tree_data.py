"""Turns the structure of a call's arguments or results into plain data, and back."""

from __future__ import annotations

import json
import keyword
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch.fx.graph import _custom_builtins
from torch.utils import _pytree as pytree

from ..errors import ArtifactError
from .typed_json import parse, typed

__all__ = [
    "SHADOWED",
    "TreeData",
    "is_name",
    "is_plain_tree",
    "read_call_tree",
    "read_tree",
    "write_tree",
]


class TreeData(TypedDict):
    """A structure: the name of its type (None for a leaf), its context in JSON, its children."""

    type: str | None
    context: str | None
    children_spec: list[Any]


SHADOWED = frozenset({*_custom_builtins, "self"})
"""Names that torch's source code of a graph uses itself: no argument of a call may have them."""
_MOST_DEPTH = 64
_RESULTS = "torch.return_types."
"""The prefix for types that torch defines for the results of operators, such as `topk`."""
_PLAIN = ("builtins.", "collections.", _RESULTS)
_LISTS = (list, tuple)
_DICTS = (dict, OrderedDict)


def write_tree(tree: pytree.TreeSpec) -> TreeData:
    """Return a pytree's structure in the form of `torch.utils._pytree`.

    Raises:
        ArtifactError: a type in it was registered without a serialized name.
    """
    if tree.is_leaf():
        return {"type": None, "context": None, "children_spec": []}
    children = [write_tree(child) for child in _children(tree)]
    name = _name(tree.type)
    try:
        context = json.dumps(tree.context)
        data = TreeData(type=name, context=context, children_spec=children)
        if read_tree(data) != tree:
            raise ArtifactError(
                f"its arguments or results come back as others: the context of {name} must be "
                f"None, a number, a string or a list of these"
            )
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"its arguments or results cannot be written: {error}") from error
    return data


def read_tree(data: Any, depth: int = 0) -> pytree.TreeSpec:
    """Return the structure that `write_tree` wrote, without importing what the data names.

    torch's own reader imports modules by the names in its data.

    Raises:
        ArtifactError: a type in it is not registered in this process, or its content does not fit
            its type.
    """
    found = typed(data, TreeData, "a structure")
    if depth > _MOST_DEPTH:
        raise ArtifactError(f"a structure is nested more than {_MOST_DEPTH} times")
    children = [read_tree(child, depth + 1) for child in found["children_spec"]]
    name = found["type"]
    if name is None:
        if children or found["context"] is not None:
            raise ArtifactError("a leaf of a structure has something in it")
        return pytree.tree_structure(0)
    kind = _type(name)
    context = parse((found["context"] or "null").encode(), "the context of a structure")
    _require_fit(kind, name, context, len(children))
    return pytree.TreeSpec(kind, context, children)


def is_plain_tree(data: TreeData) -> bool:
    """Return whether a structure is made of Python's and torch's own types only."""
    name = data["type"] or "builtins."
    return name.startswith(_PLAIN) and all(map(is_plain_tree, data["children_spec"]))


def read_call_tree(data: Any, names: Sequence[str]) -> pytree.TreeSpec:
    """Return the structure of a call's arguments, which becomes source code that passes `names`.

    Raises:
        ArtifactError: this is no structure of a call, or one of the names is no identifier.
    """
    tree = read_tree(data)
    children = _children(tree)
    if tree.type is not tuple or [child.type for child in children] != [tuple, dict]:
        raise ArtifactError("the structure of a call's arguments is no tuple and dict")
    positional, keywords = children
    if not all(type(key) is str and is_name(key) for key in (*names, *keywords.context)):
        raise ArtifactError("an argument's name is no identifier")
    if shadowed := SHADOWED.intersection(names):
        raise ArtifactError(f"an argument has the name {min(shadowed)}, which torch's source uses")
    if len(set(names)) != len(names):
        raise ArtifactError("two arguments have one name")
    if len(names) != positional.num_children + keywords.num_children:
        raise ArtifactError(f"there are {len(names)} names, but not as many arguments")
    return tree


def is_name(text: str) -> bool:
    """Return whether source code may have `text` as the name of a variable.

    Python reads some names as others, such as a wide letter as the plain one: they are refused.
    """
    is_itself = unicodedata.normalize("NFKC", text) == text
    return is_itself and text.isidentifier() and not keyword.iskeyword(text)


def _children(tree: pytree.TreeSpec) -> list[pytree.TreeSpec]:
    # In newer versions of torch this is a method, and the attribute warns.
    return list(tree.children() if hasattr(tree, "children") else tree.children_specs)


def _name(kind: Any) -> str:
    # Older versions of torch register these types without a serialized name.
    if kind in torch.return_types.all_return_types:
        return f"{_RESULTS}{kind.__name__}"
    known = pytree.SUPPORTED_SERIALIZED_TYPES.get(kind)
    if known is None or known.serialized_type_name == pytree.NO_SERIALIZED_TYPE_NAME_FOUND:
        raise ArtifactError(
            f"its arguments or results have a {kind.__module__}.{kind.__qualname__}: register it "
            f"by torch.utils._pytree.register_pytree_node, with a serialized_type_name"
        )
    return known.serialized_type_name


def _type(name: str) -> Any:
    """Return the type of that name, if its context is plain JSON."""
    if name.startswith(_RESULTS):
        kind = vars(torch.return_types).get(name.removeprefix(_RESULTS))
        if kind in torch.return_types.all_return_types:
            return kind
    kind = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(name)
    known = pytree.SUPPORTED_SERIALIZED_TYPES.get(kind)  # type: ignore[arg-type]  # None has none
    if kind is None or known is None or known.from_dumpable_context is not None:
        raise ArtifactError(
            f"its arguments or results have the type {name:.80}, which is not known"
        )
    return kind


def _require_fit(kind: Any, name: str, context: Any, count: int) -> None:
    """Refuse a context that `write_tree` never writes for this type."""
    items = context if isinstance(context, list) else [context]
    if not all(item is None or type(item) in (bool, int, float, str) for item in items):
        raise ArtifactError(f"a {name} among its arguments or results has keys of other types")
    if kind in _DICTS:
        fits = isinstance(context, list) and len(set(context)) == len(context) == count
    elif kind is deque:
        fits = context is None or (type(context) is int and context >= count)
    elif name.startswith(_RESULTS):
        fits = context is None and count == kind.n_sequence_fields
    else:
        fits = context is None or kind not in _LISTS
    if not fits:
        raise ArtifactError(f"a {name} among its arguments or results has the wrong keys")
