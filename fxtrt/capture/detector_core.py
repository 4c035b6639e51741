"""Captures the core of a detector: one graph for all sizes and numbers of images in a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ..detection import Recipe
from ..detection.host_steps import HostSteps, for_inference
from ..errors import CaptureError
from ..graph.specs import Call
from .model_part import ModelPart, part_of

__all__ = ["capture_core"]


def capture_core(
    model: torch.nn.Module,
    recipe: Recipe,
    calls: Sequence[Call],
    most_images: int,
    *,
    static: bool = False,
) -> ModelPart:
    """Return the core of a detector as the part that stands for the whole model.

    Args:
        calls: calls of the model; the first is the example, and each must fit the core.
        most_images: the upper bound of images, unless a call has more.
        static: whether the core is for the padded sizes of the example only.

    Raises:
        CaptureError: the architecture has no core, the model overrides what a core does itself,
            the inputs are not what a core takes, or the core cannot be captured.
    """
    if recipe.host_steps is None:
        raise CaptureError(f"the recipe of {recipe.architecture} has no core")
    steps = recipe.host_steps(model)
    if isinstance(steps, str):
        raise CaptureError(steps)
    with torch.no_grad():
        prepared = [_inputs(steps, call) for call in calls]
    inputs, shapes = prepared[0], None
    if not static:
        most = max(most_images, *(one[0].shape[0] for one in prepared))
        inputs = steps.example(inputs, most)
        shapes = steps.dynamic_shapes(inputs, most)
    part = part_of(for_inference(steps.core, model), recipe, Call(inputs, {}), shapes, "")
    return replace(part, module=model, steps=steps)


def _inputs(steps: HostSteps, call: Call) -> tuple[Any, ...]:
    if call.kwargs:
        raise CaptureError(f"the core takes no keyword argument {min(call.kwargs)!r}")
    try:
        return steps.before(*call.args).inputs
    except Exception as error:  # The caller may have passed anything.
        raise CaptureError(f"the inputs are not what the core takes: {error!r}") from error
