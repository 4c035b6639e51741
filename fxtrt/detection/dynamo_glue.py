"""Keep out of Dynamo what would break a detector into dozens of small graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from ..errors import CaptureError
from .prepared_forward import is_prepared, undo_of, with_core
from .recipes import recipe_of
from .substitution import place_of

__all__ = ["prepare"]

_REASON = "fxtrt.detection.prepare keeps this function whole, out of any graph"


def prepare(model: torch.nn.Module) -> Callable[[], None]:
    """Let Dynamo skip the glue between a detector's networks; call it before `torch.compile`.

    The functions that select proposals, pool, suppress and paste masks branch on data in many
    places, and each place is a graph break. With this, a model whose architecture has a core
    (`HostSteps`) gets a `forward` that is one graph between two steps in Python. For all others,
    each such function becomes one call in PyTorch: the functions are then replaced for the whole
    process, in the package that `model` comes from, by functions that return the same.
    `fxtrt.compile` does not need any of this. A model that has such a `forward` keeps it.

    Returns:
        A function that puts the originals back.

    Raises:
        CaptureError: the architecture has no recipe that names its glue, or its package has no
            such function.
    """
    if is_prepared(model):
        return undo_of(model)
    recipe = recipe_of(model)
    if recipe is not None and recipe.host_steps is not None:
        steps = recipe.host_steps(model)
        if not isinstance(steps, str):
            return with_core(model, steps, recipe.host_steps)
    if recipe is None or not recipe.glue:
        raise CaptureError(
            f"{type(model).__name__} has no recipe that names its glue: register one, with the "
            "names of the functions in `glue` (fxtrt.detection.register)"
        )
    with ExitStack() as stack:
        for name in recipe.glue:
            owner, attribute = place_of(name)
            skipped = _out_of_dynamo(owner, attribute)
            stack.enter_context(patch.object(owner, attribute, skipped))
        return stack.pop_all().close


def _out_of_dynamo(owner: Any, attribute: str) -> Any:
    function = getattr(owner, attribute)
    disabled = torch.compiler.disable(function, reason=_REASON)  # type: ignore[no-untyped-call]  # torch's
    is_static = isinstance(vars(owner).get(attribute), staticmethod)
    return staticmethod(disabled) if is_static else disabled
