"""Parts of a model whose engines have settings of their own."""

from __future__ import annotations

import operator
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch.fx import Node

from .detection import plan_of
from .lists import Patterns
from .settings import Settings

__all__ = ["Components", "producer", "with_planned_components"]


class Components:
    """The component of each node, as a number: 0 for what belongs to none of `components`."""

    def __init__(self, settings: Settings) -> None:
        self._patterns = [Patterns((name,)) for name in settings.components]
        self._settings = [settings, *map(settings.of_component, settings.components)]

    @property
    def count(self) -> int:
        """How many there are, 0 among them."""
        return len(self._settings)

    def number(self, node: Node) -> int:
        """The first component whose pattern names `node`."""
        call = producer(node)
        named = (number for number, one in enumerate(self._patterns, 1) if one.match(call))
        return next(named, 0)

    def settings(self, number: int) -> Settings:
        """How to build the engines of a component."""
        return self._settings[number]


def with_planned_components(settings: Settings, model: torch.nn.Module) -> Settings:
    """`settings`, and after its components those of the architecture's plan that `model` has."""
    plan = plan_of(model)
    if plan is None or not plan.components:
        return settings
    paths = [path for path, _ in model.named_modules()]
    planned = {
        name: options
        for name, options in plan.components.items()
        if name not in settings.components and any(fnmatchcase(path, name) for path in paths)
    }
    return replace(settings, components={**settings.components, **planned})


def producer(node: Node) -> Node:
    """The node whose result this is: `getitem` belongs to what it takes from."""
    source = node.args[0] if node.target is operator.getitem else node
    assert isinstance(source, Node)
    return source
