"""Keeps out of Dynamo what would break a detector into dozens of small graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from ..errors import CaptureError
from .recipes import recipe_of
from .substitution import place_of

__all__ = ["prepare"]

_REASON = "fxtrt.detection.prepare keeps this function whole, out of any graph"


def prepare(model: torch.nn.Module) -> Callable[[], None]:
    """Before `torch.compile`: let Dynamo leave alone the glue between a detector's networks.

    Selecting proposals, pooling, suppressing and pasting masks depend on data, line after line;
    Dynamo makes a graph of what is between two such lines. Here they become one call each, in
    PyTorch, and the networks a few large graphs. `fxtrt.compile` does not need it.

    For the whole process: it replaces functions of the package that `model` comes from, by
    functions that give the same. It may be called again.

    Returns:
        What puts the originals back.

    Raises:
        CaptureError: the architecture has no plan that names its glue, or its package has no such
            function.
    """
    plan = recipe_of(model)
    if plan is None or not plan.glue:
        raise CaptureError(
            f"{type(model).__name__} has no plan that names its glue: register one, with the "
            "names of the functions in `glue` (fxtrt.detection.register)"
        )
    with ExitStack() as stack:
        for name in plan.glue:
            owner, attribute = place_of(name)
            whole = _out_of_dynamo(owner, attribute)
            stack.enter_context(patch.object(owner, attribute, whole))
        return stack.pop_all().close


def _out_of_dynamo(owner: Any, attribute: str) -> Any:
    function = getattr(owner, attribute)
    disabled = torch.compiler.disable(function, reason=_REASON)  # type: ignore[no-untyped-call]  # torch's
    is_static = isinstance(vars(owner).get(attribute), staticmethod)
    return staticmethod(disabled) if is_static else disabled
