"""Numbers the parts of a model whose engines have settings of their own."""

from __future__ import annotations

from torch.fx import Node

from ..graph.nodes import producer
from ..graph.patterns import Patterns
from ..settings import Settings

__all__ = [
    "Components",
]


class Components:
    """The components of a model by number; 0 stands for what belongs to none of them."""

    def __init__(self, settings: Settings) -> None:
        self._patterns = [Patterns((name,)) for name in settings.components]
        self._settings = [settings, *map(settings.of_component, settings.components)]

    @property
    def count(self) -> int:
        """Count the numbers, 0 included."""
        return len(self._settings)

    def number(self, node: Node) -> int:
        """Return the number of the first component whose pattern names `node`."""
        call = producer(node)
        named = (number for number, one in enumerate(self._patterns, 1) if one.match(call))
        return next(named, 0)

    def settings(self, number: int) -> Settings:
        """Return the settings for the engines of a component."""
        return self._settings[number]
