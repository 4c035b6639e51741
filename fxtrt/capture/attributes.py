"""Notes what attributes and containers hold, to see whether that changes, and to undo it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any

import numpy as np
import torch

from .reachable import named_slots, reachable

__all__ = ["Attributes", "attributes_kept"]

_CONTAINERS = (dict, list, set, deque)


class Attributes:
    """The elements of containers and the slots of objects, as they were."""

    def __init__(self, held: Sequence[Any]) -> None:
        """Note those of each object in `held`; an object's own dictionary is one of them."""
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
        """Whether an attribute or an element is another object than before."""
        return any(not _is_same(_elements(now), before) for now, before in self._containers) or any(
            getattr(owner, name, None) is not value for owner, name, value in self._slots
        )

    def restore(self) -> None:
        """Make all that it was; what is as it was is not written to."""
        for container, before in self._containers:
            if not _is_same(_elements(container), before):
                _refill(container, before)
        for owner, name, value in self._slots:
            if getattr(owner, name, None) is not value:
                object.__setattr__(owner, name, value)


@contextmanager
def attributes_kept(model: torch.nn.Module) -> Iterator[None]:
    """Undo what the block assigns to attributes of the modules, or of what they hold."""
    attributes = Attributes(list(reachable(model)))
    try:
        yield
    finally:
        attributes.restore()


def _elements(container: Any) -> Any:
    """A plain copy, whatever the methods of a subclass do."""
    return dict(dict.items(container)) if isinstance(container, dict) else list(container)


def _is_same(now: Any, before: Any) -> bool:
    same = len(now) == len(before) and all(map(is_, now, before))
    return same and (not isinstance(now, dict) or all(map(is_, now.values(), before.values())))


def _refill(container: Any, before: Any) -> None:
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(before)
    else:
        container.extend(before)
