"""Which architectures are captured whole, and what each needs for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

import torch

from ..settings import Settings

__all__ = ["Equivalents", "Recipe", "recipe_of", "register", "with_recipe_components"]

Equivalents = Mapping[str, Callable[..., Any]]

_BUILT_IN = {
    "detectron2.modeling": ".detectron2.recipes",
    "detectron2.projects.panoptic_deeplab": ".detectron2.panoptic_deeplab",
    "panoptic_deeplab": ".detectron2.panoptic_deeplab",
    "torchvision.models.detection": ".torchvision.recipes",
}
"""Where the architectures of a package have their plans; imported only when one is asked for."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `torch.export` needs to see a detector as one graph.

    architecture: the class of the model, as "module.Class"; subclasses that keep its `forward`
                  count as it.
    equivalents:  by the name of a function or method, as "module.Class.method", what stands in for
                  it during capture. It takes the same arguments and gives the same numbers,
                  without a branch that depends on data.
    dynamic_shapes: of the model's positional arguments, the sizes that vary from call to call, as
                  `torch.export` takes them, where `fxtrt.compile` is not told; None keeps all.
    arguments:    makes of the model's positional arguments those that the graph is captured with
                  and called with: without what its `forward` does not read, which may then be
                  anything. It raises where they are of another form. None takes them as they are.
    components:   parts that get engines of their own, by module path, and their options, as in
                  `Settings.components`; what a model does not have is left out, and what the user
                  says of the same part counts.
    glue:         names, as in `equivalents`, of what breaks Dynamo's graph many times and has
                  nothing for an engine; `prepare` keeps it out of Dynamo.
    """

    architecture: str
    equivalents: Equivalents = field(repr=False)
    dynamic_shapes: Callable[..., Any] | None = field(default=None, repr=False)
    arguments: Callable[..., tuple[Any, ...]] | None = field(default=None, repr=False)
    glue: tuple[str, ...] = field(default=(), repr=False)
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)


_PLANS: dict[str, Recipe] = {}


def register(plan: Recipe) -> Recipe:
    """Capture models of `plan.architecture` whole from now on; replaces an earlier plan."""
    _PLANS[plan.architecture] = plan
    return plan


def recipe_of(model: torch.nn.Module) -> Recipe | None:
    """The plan of the class whose `forward` the model has, or None."""
    owner = next(cls for cls in type(model).__mro__ if "forward" in cls.__dict__)
    for package, module in _BUILT_IN.items():
        if owner.__module__.startswith(package):
            import_module(module, __package__)
    return _PLANS.get(f"{owner.__module__}.{owner.__qualname__}")


def with_recipe_components(settings: Settings, model: torch.nn.Module) -> Settings:
    """`settings`, and after its components those of the architecture's plan that `model` has."""
    plan = recipe_of(model)
    if plan is None or not plan.components:
        return settings
    paths = [path for path, _ in model.named_modules()]
    planned = {
        name: options
        for name, options in plan.components.items()
        if name not in settings.components and any(fnmatchcase(path, name) for path in paths)
    }
    return replace(settings, components={**settings.components, **planned})
