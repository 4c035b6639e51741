"""Turns values into everything that they hold: modules, containers, objects and tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["is_opaque", "named_slots", "reachable"]

_CLOSED = ("fxtrt", "torch", "logging")
"""Packages whose objects are not looked into, except modules: compiled graphs, engines, slots and
loggers are meant to change while a model runs."""


def reachable(*roots: Any) -> Iterator[Any]:
    """Yield each object that `roots` hold at any depth, once, except those that cannot change.

    An object with attributes is yielded twice: as itself, and as its `__dict__`.
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
    """Return the objects that `value` refers to directly."""
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
    """Return whether an object is not looked into, because it is of a package of `_CLOSED`."""
    if isinstance(value, torch.nn.Module):
        return False
    return type(value).__module__.partition(".")[0] in _CLOSED


def named_slots(value: Any) -> list[str]:
    """Return the names of an object's `__slots__` that have a value."""
    names: list[str] = []
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names += [_mangled(name, cls) for name in ([slots] if isinstance(slots, str) else slots)]
    return [name for name in names if name not in _NO_VALUES and hasattr(value, name)]


def _mangled(name: str, cls: type) -> str:
    """Return the name under which Python keeps a private attribute of a class."""
    is_private = name.startswith("__") and not name.endswith("__")
    return f"_{cls.__name__.lstrip('_')}{name}" if is_private else name


_NO_VALUES = ("__dict__", "__weakref__")
