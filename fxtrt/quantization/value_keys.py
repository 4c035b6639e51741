"""Turns the values of a graph into keys that a second capture of the same model gives again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ..graph.weights import attribute
from ..serialization.digests import sha256, weight_digest
from .plan import candidates

__all__ = ["graph_digest", "scale_keys", "value_keys"]


def value_keys(gm: GraphModule) -> dict[Node, str]:
    """Return a key of each value: a digest of the calls and weights that it is computed from.

    Two values with one key are equal. Names, the order of calls, and the ranges of sizes do not
    count, but a size that is static in one capture and dynamic in another makes other keys.
    """
    keys: dict[Node, str] = {}
    inputs = 0
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            value = node.meta.get("val")
            is_tensor = isinstance(value, torch.Tensor)
            keys[node] = sha256("input", str(inputs), str(value.dtype)) if is_tensor else "size"
            inputs += is_tensor
        elif node.op == "get_attr":
            keys[node] = sha256("weight", weight_digest(attribute(gm, node)))
        elif node.op != "output":
            call = repr(_plain((node.args, dict(sorted(node.kwargs.items()))), keys))
            keys[node] = sha256(_name(node.target), call)
    return keys


def scale_keys(gm: GraphModule) -> dict[Node, str]:
    """Return the key of each value that may be quantized.

    The key covers the graph too: the first inputs of two graphs are computed from nothing, but are
    not the same.
    """
    keys, values = value_keys(gm), candidates(gm)
    whole = graph_digest(keys[node] for node in values)
    return {node: sha256(whole, keys[node]) for node in values}


def graph_digest(keys: Iterable[str]) -> str:
    """Return a digest of the values of a graph that may be quantized."""
    return sha256(*sorted(set(keys)))


def _plain(value: Any, keys: dict[Node, str]) -> Any:
    if isinstance(value, Node):
        return f"node {keys[value]}"
    if isinstance(value, (list, tuple)):
        return [_plain(item, keys) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, keys) for name, item in value.items()}
    return value


def _name(target: Any) -> str:
    """Return the name of a target; the repr of a function would have its address in it."""
    if isinstance(target, (str, OpOverload)):
        return str(target)
    return f"{target.__module__}.{target.__qualname__}"
