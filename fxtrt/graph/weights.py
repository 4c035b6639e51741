"""Read the weights of graphs and modules, and add new ones to a graph."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule, Node

from .metadata import fake_mode_of

__all__ = ["add_weight", "attribute", "named_tensors", "weight"]


def named_tensors(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return all parameters, then all buffers; a shared one stands under each of its names."""
    parameters = module.named_parameters(remove_duplicate=False)
    return [*parameters, *module.named_buffers(remove_duplicate=False)]


def weight(gm: GraphModule, node: Node) -> torch.Tensor | None:
    """Return the tensor that a `get_attr` reads; None for other nodes and other attributes.

    A tensor without ordinary storage (meta, sparse, quantized, a subclass) also gives None, because
    passes cannot compute with its elements.
    """
    if node.op != "get_attr":
        return None
    value: Any = functools.reduce(getattr, str(node.target).split("."), gm)
    ordinary = type(value) in (torch.Tensor, torch.nn.Parameter)
    if not ordinary or value.layout != torch.strided or value.is_meta or value.is_quantized:
        return None
    return value  # type: ignore[no-any-return]  # its type was just compared


def add_weight(
    gm: GraphModule, value: torch.Tensor, name: str, mode: FakeTensorMode | None = None
) -> Node:
    """Register `value` as a buffer and read it with a `get_attr` at the insertion point.

    Args:
        name: the name of the buffer; a number is added if the module already has that attribute.
        mode: what `fake_mode_of` returns; None asks it.
    """
    unique, count = name, 0
    while hasattr(gm, unique):
        count += 1
        unique = f"{name}_{count}"
    gm.register_buffer(unique, value.detach(), persistent=False)
    node = gm.graph.get_attr(unique)
    mode = mode or fake_mode_of(gm)
    node.meta["val"] = mode.from_tensor(value.detach(), static_shapes=True)
    return node


def attribute(gm: GraphModule, node: Node) -> torch.Tensor:
    """Return the tensor that a `get_attr` reads; its target may be a path through submodules."""
    value = operator.attrgetter(str(node.target))(gm)
    assert isinstance(value, torch.Tensor)
    return value
