"""Turns a call and its answer into plain data and tensors, and back."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch.utils import _pytree as pytree

from ..errors import ArtifactError
from ..graph.specs import Call
from ..serialization.constant_data import Form, read_constants, write_constants
from ..serialization.tree_data import TreeData, is_plain_tree, read_tree, write_tree
from ..serialization.typed_json import typed

__all__ = ["Golden", "read_golden", "write_golden"]

_PLAIN: Any = None | bool | int | float | str


class Golden(TypedDict):
    """A call and its answer in the manifest.

    inputs, outputs: the leaves of each; a tensor is {"tensor": its number}.
    takes, gives:    the structures of these.
    tensors:         the forms of the tensors, whose elements are a member of the file.
    """

    takes: TreeData
    inputs: list[Any]
    gives: TreeData
    outputs: list[Any]
    tensors: list[Form]


def write_golden(call: Call, answer: Any) -> tuple[Golden, bytes]:
    """Return the data and the bytes of the tensors of a call and its answer.

    Raises:
        ArtifactError: one of them has something that a file cannot hold, or that takes the model's
            own packages to read.
    """
    tensors: list[torch.Tensor] = []
    takes, inputs = _flat((tuple(call.args), dict(call.kwargs)), tensors)
    gives, outputs = _flat(answer, tensors)
    forms, data = write_constants(tensors)
    golden: Golden = {
        "takes": takes,
        "inputs": inputs,
        "gives": gives,
        "outputs": outputs,
        "tensors": forms,
    }
    return golden, data


def read_golden(golden: Golden, data: bytes) -> tuple[Call, Any]:
    """Return the call and its answer.

    Raises:
        ArtifactError: the data is not what `write_golden` writes.
    """
    tensors = read_constants(golden["tensors"], data)
    arguments = _nested(golden["takes"], golden["inputs"], tensors)
    is_call = isinstance(arguments, tuple) and len(arguments) == 2
    if not is_call or not isinstance(arguments[0], tuple) or not isinstance(arguments[1], dict):
        raise ArtifactError("the golden call has no tuple of arguments and dict of keywords")
    return Call(*arguments), _nested(golden["gives"], golden["outputs"], tensors)


def _flat(value: Any, tensors: list[torch.Tensor]) -> tuple[TreeData, list[Any]]:
    leaves, structure = pytree.tree_flatten(value)
    data = write_tree(structure)
    if not is_plain_tree(data):
        raise ArtifactError("a call or its answer has values of a type of the model's own packages")
    return data, [_leaf(leaf, tensors) for leaf in leaves]


def _leaf(leaf: Any, tensors: list[torch.Tensor]) -> Any:
    if isinstance(leaf, torch.Tensor):
        # Expanded tensors and slices of larger ones become ordinary ones.
        tensors.append(leaf.detach().clone(memory_format=torch.preserve_format))
        return {"tensor": len(tensors) - 1}
    if leaf is None or type(leaf) in (bool, int, float, str):
        return leaf
    raise ArtifactError(f"a call or its answer has a {type(leaf).__name__}")


def _nested(tree: TreeData, leaves: list[Any], tensors: list[torch.Tensor]) -> Any:
    structure = read_tree(tree)
    if structure.num_leaves != len(leaves):
        raise ArtifactError(f"a golden value has {len(leaves)} leaves")
    return pytree.tree_unflatten([_value(leaf, tensors) for leaf in leaves], structure)


def _value(leaf: Any, tensors: list[torch.Tensor]) -> Any:
    if not isinstance(leaf, dict):
        return typed(leaf, _PLAIN, "a golden value")
    number = typed(leaf, dict[str, int], "a golden value").get("tensor", -1)
    if len(leaf) != 1 or not 0 <= number < len(tensors):
        raise ArtifactError(f"a golden value is {leaf!r:.80}")
    return tensors[number]
