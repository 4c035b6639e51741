"""Walks through everything that a value holds: modules, containers, objects, arrays and tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["is_opaque", "named_slots", "reachable"]

_CLOSED = ("fxtrt", "torch", "logging")
"""Objects of these packages are not looked into, modules apart: compiled graphs, their engines and
slots, and logs, change while a model runs, and have to."""


def reachable(*roots: Any) -> Iterator[Any]:
    """Each object that `roots` hold, at any depth and once; what cannot change is left out.

    An object with attributes comes twice: as itself, and as the dictionary that it keeps them in.
    """
    seen: dict[int, Any] = {}
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, _UNCHANGING):
            continue
        seen[id(value)] = value
        yield value
        waiting.extend(_held(value))


_UNCHANGING = (
    *(type(None), bool, int, float, complex, str, bytes, type, ModuleType, FunctionType),
    *(torch.dtype, torch.device, torch.Size),
)


def _held(value: Any) -> list[Any]:
    """What `value` itself refers to."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return []
    if isinstance(value, MethodType):
        return [value.__self__]
    held: list[Any] = []
    if isinstance(value, dict):
        held += value.values()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        held += value
    if not is_opaque(value):
        held += [vars(value)] if hasattr(value, "__dict__") else []
        held += [getattr(value, name) for name in named_slots(value)]
    return held


def is_opaque(value: Any) -> bool:
    """Whether an object belongs to a package that is not looked into, and is no module."""
    if isinstance(value, torch.nn.Module):
        return False
    return type(value).__module__.partition(".")[0] in _CLOSED


def named_slots(value: Any) -> list[str]:
    """The attributes of an object that lie in slots and have a value."""
    names: list[str] = []
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return [name for name in names if name not in _NO_VALUES and hasattr(value, name)]


_NO_VALUES = ("__dict__", "__weakref__")
