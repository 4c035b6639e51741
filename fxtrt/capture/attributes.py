"""Records what attributes and containers hold, to detect changes and to undo them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np
import torch

from .reachable import named_slots, reachable

__all__ = ["Attributes", "attributes_kept"]

_CONTAINERS = (OrderedDict, dict, list, set, deque)
"""Kinds of containers. Their own methods are called, because a subclass may override them."""


class Attributes:
    """Holds the elements of containers and the slots of objects as they were when it was made."""

    def __init__(self, held: Sequence[Any]) -> None:
        """Record the contents of each object in `held`, which includes objects' `__dict__`s."""
        self._containers = [
            (value, _elements(value)) for value in held if isinstance(value, _CONTAINERS)
        ]
        self._slots = [
            (value, name, getattr(value, name))
            for value in held
            if not isinstance(value, (torch.Tensor, np.ndarray))
            for name in named_slots(value)
        ]

    @property
    def are_changed(self) -> bool:
        """Whether an attribute or an element is now another object than when this was made."""
        return any(not _is_same(_elements(now), before) for now, before in self._containers) or any(
            getattr(owner, name, None) is not value for owner, name, value in self._slots
        )

    def restore(self) -> None:
        """Undo the changes, without writing to what has not changed."""
        for container, before in self._containers:
            if not _is_same(_elements(container), before):
                _refill(container, before)
        for owner, name, value in self._slots:
            if getattr(owner, name, None) is not value:
                object.__setattr__(owner, name, value)


@contextmanager
def attributes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Undo, at the end of the block, its assignments to attributes of modules and their objects."""
    attributes = Attributes(list(reachable(model)))
    try:
        yield
    finally:
        attributes.restore()


def _kind(container: Any) -> Any:
    return next(kind for kind in _CONTAINERS if isinstance(container, kind))


def _elements(container: Any) -> Any:
    """Return the elements as a plain dict or list."""
    kind = _kind(container)
    return dict(kind.items(container)) if issubclass(kind, dict) else list(kind.__iter__(container))


def _is_same(now: Any, before: Any) -> bool:
    same = len(now) == len(before) and all(map(is_, now, before))
    return same and (not isinstance(now, dict) or all(map(is_, now.values(), before.values())))


def _refill(container: Any, before: Any) -> None:
    kind = _kind(container)
    kind.clear(container)
    add = kind.update if issubclass(kind, (dict, set)) else kind.extend
    add(container, before)
