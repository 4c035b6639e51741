"""Tells tensors that are plain memory, as engines read it, from those that only look like it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils import _pytree as pytree

__all__ = ["as_plain", "behaves_plainly", "plain", "why_unreadable"]

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_LABELS = "torchvision.tv_tensors"
"""The module of tensor classes that only say what a tensor is: an image, boxes, a mask."""


def as_plain(values: Any) -> Any:
    """The same pytree with the tensors of `torchvision.tv_tensors` as plain ones."""
    return pytree.tree_map_only(torch.Tensor, plain, values)


def plain(value: Any) -> Any:
    """A tensor of `torchvision.tv_tensors` as a plain one; anything else as it is."""
    kind: Any = type(value)
    if kind in _PLAIN or not isinstance(value, torch.Tensor) or not behaves_plainly(kind):
        return value
    with torch._C._DisableTorchDispatch():  # AOTAutograd's own mode refuses the operator.
        return value.as_subclass(torch.Tensor)


@cache
def behaves_plainly(kind: Any) -> bool:
    """Whether operators do with tensors of a class as with plain ones, and give plain ones."""
    return kind in _PLAIN or str(kind.__module__).startswith(_LABELS)


def why_unreadable(tensor: torch.Tensor) -> str | None:
    """Why an engine cannot read the memory of `tensor` as its elements, or None."""
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
    """Whether a class of tensors takes operators over, as fake, functional and wrapping ones do."""
    return bool(kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__)
