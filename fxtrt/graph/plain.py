"""Tell tensors whose memory holds their elements, as engines read it, from other tensors."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["as_plain", "behaves_plainly", "plain", "why_unreadable"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_LABELS = "torchvision.tv_tensors"
"""The module of tensor classes that only label a tensor as an image, boxes or a mask."""


def as_plain(values: Any) -> Any:
    """Return the same pytree with the tensors of `torchvision.tv_tensors` as plain ones."""
    return pytree.tree_map_only(torch.Tensor, plain, values)


def plain(value: Any) -> Any:
    """Return a tensor of `torchvision.tv_tensors` as a plain one, and anything else unchanged."""
    kind: Any = type(value)
    if kind in _PLAIN or not isinstance(value, torch.Tensor) or not behaves_plainly(kind):
        return value
    with torch._C._DisableTorchDispatch():  # AOTAutograd's own mode refuses the operator.
        return value.as_subclass(torch.Tensor)


@cache
def behaves_plainly(kind: Any) -> bool:
    """Return whether operators treat tensors of a class as plain ones and return plain ones."""
    return kind in _PLAIN or str(kind.__module__).startswith(_LABELS)


def why_unreadable(tensor: torch.Tensor) -> str | None:
    """Return why an engine cannot read the memory of `tensor` as its elements, or None."""
    if type(tensor) not in _PLAIN and _has_no_memory(type(tensor)):
        return f"a {type(tensor).__name__}"
    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return f"sparse ({tensor.layout})"
    if tensor.is_neg():
        return "a view that negates its memory (torch.Tensor.resolve_neg)"
    return None


@cache
def _has_no_memory(kind: Any) -> bool:
    """Return whether a tensor class overrides dispatch, as fake and wrapper tensors do."""
    return bool(kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__)
