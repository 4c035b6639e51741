"""Register recipes by architecture, and find the one that fits a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

import torch

from ..settings import Settings
from .host_steps import HostSteps

__all__ = ["Equivalents", "Recipe", "recipe_of", "register", "with_recipe_components"]

Equivalents = Mapping[str, Callable[..., Any]]

_BUILT_IN = {
    "detectron2.modeling": ".detectron2.recipes",
    "detectron2.projects.panoptic_deeplab": ".detectron2.panoptic_deeplab",
    "panoptic_deeplab": ".detectron2.panoptic_deeplab",
    "torchvision.models.detection": ".torchvision.recipes",
}
"""The modules that register recipes, by the package of the models that need them.

A module is imported only when the recipe of such a model is asked for."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that `torch.export` needs to capture a detector as one graph.

    architecture: the class of the model, as "module.Class"; subclasses that keep its `forward`
                  count as it.
    equivalents:  functions by the name of the function or method, "module.Class.method", that they
                  replace during capture. An equivalent takes the same arguments and returns the
                  same numbers, without a branch that depends on data.
    dynamic_shapes: a function from the model's positional arguments to the sizes that vary from
                  call to call, as `torch.export` takes them. It is used if `fxtrt.compile` is not
                  told these; None makes all sizes static.
    arguments:    a function from the model's positional arguments to those that the graph is
                  captured and called with. It drops what `forward` does not read, so that those
                  may have any value, and raises if the form is another. None changes nothing.
    components:   options by module path for parts that get engines of their own, as in
                  `Settings.components`. Parts that the model lacks are skipped, and the user's
                  options for the same part take precedence.
    host_steps:   a function from a model of the architecture to its core and the steps around it
                  (`HostSteps`), or to the reason why this model has none. Where there is a core,
                  it is captured in place of the whole.
    glue:         names, as in `equivalents`, of functions with many graph breaks and no work for
                  an engine; `prepare` keeps them out of Dynamo.
    """

    architecture: str
    equivalents: Equivalents = field(repr=False)
    dynamic_shapes: Callable[..., Any] | None = field(default=None, repr=False)
    arguments: Callable[..., tuple[Any, ...]] | None = field(default=None, repr=False)
    glue: tuple[str, ...] = field(default=(), repr=False)
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    host_steps: Callable[[Any], HostSteps | str] | None = field(default=None, repr=False)


_RECIPES: dict[str, Recipe] = {}


def register(recipe: Recipe) -> Recipe:
    """Capture models of `recipe.architecture` whole from now on; an earlier recipe is replaced."""
    _RECIPES[recipe.architecture] = recipe
    return recipe


def recipe_of(model: torch.nn.Module) -> Recipe | None:
    """Return the recipe of the class whose `forward` the model has, or None."""
    owner = next(cls for cls in type(model).__mro__ if "forward" in cls.__dict__)
    for package, module in _BUILT_IN.items():
        if owner.__module__.startswith(package):
            import_module(module, __package__)
    return _RECIPES.get(f"{owner.__module__}.{owner.__qualname__}")


def with_recipe_components(settings: Settings, model: torch.nn.Module) -> Settings:
    """Add the components of the recipe that `model` has to those of `settings`, after them."""
    recipe = recipe_of(model)
    if recipe is None or not recipe.components:
        return settings
    paths = [path for path, _ in model.named_modules()]
    added = {
        name: options
        for name, options in recipe.components.items()
        if name not in settings.components and any(fnmatchcase(path, name) for path in paths)
    }
    return replace(settings, components={**settings.components, **added})
