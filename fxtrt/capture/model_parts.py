"""Turns a model into graphs: one of the whole if it exports, else one of each largest part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..detection import Recipe, recipe_of
from ..detection.prepared_forward import is_prepared
from ..errors import CaptureError
from ..graph.specs import Call
from ..serialization.model_identity import Identity, identity_of
from ..settings import Settings
from .detector_core import capture_core
from .example_run import record_calls
from .export import require_inference
from .model_part import ModelPart, part_of
from .part_sizes import region_counts
from .twin import require_module, twin_of
from .uncaptured import OutsideCall
from .untouched import untouched

__all__ = ["Captured", "Missed", "ModelPart", "capture_model"]


@dataclass(frozen=True, slots=True)
class Missed:
    """A module that could not be captured.

    module: the path in the model, "" for the model itself.
    kind:   the name of the class.
    reason: why it could not be captured, in one line.
    """

    module: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Captured:
    """A copy of a model with its captured parts, and the calls that no part has.

    recipe:   of the model's architecture, if there is one.
    identity: what `identity_of` gives for the model before it was captured.
    missed:   the modules that could not be captured.
    outside:  the calls that these modules make themselves.
    others:   more graphs of the whole, for calls of other structures.
    """

    model: torch.nn.Module
    recipe: Recipe | None
    identity: Identity
    parts: Sequence[ModelPart]
    missed: Sequence[Missed]
    outside: Sequence[OutsideCall]
    others: Sequence[ModelPart] = ()

    @property
    def how(self) -> tuple[str, ...]:
        """Lines for the report: whether the whole or which parts were captured, by which recipe."""
        if any(part.steps is not None for part in self.parts):
            (core,) = self.parts
            lines = [f"captured as a core of fixed shapes, {core.sizes}, between two host steps"]
        elif [part.path for part in self.parts] != [""]:
            paths = ", ".join(part.path for part in self.parts) or "none"
            lines = [f"captured in parts, since the whole does not export: {paths}"]
        elif self.recipe is not None:
            lines = [f"captured whole, by the recipe of {self.recipe.architecture}"]
        else:
            lines = ["captured whole"]
        if self.others:
            lines.append(f"with {len(self.others)} more graphs, for calls of other structures")
        return tuple(lines)

    def without_values(self) -> Captured:
        """Return the same with calls whose tensors take no memory."""
        parts = [part.without_values() for part in self.parts]
        others = [part.without_values() for part in self.others]
        return replace(self, parts=parts, others=others)


def capture_model(
    model: torch.nn.Module,
    call: Call,
    dynamic_shapes: Any,
    settings: Settings,
    more_calls: Sequence[Call] = (),
) -> Captured:
    """Capture the graphs of a copy of `model`; `dynamic_shapes` is as in `compile`.

    Raises:
        SettingsError: a pattern names no node of the model.
        CaptureError: the model cannot be captured; the message says what to do.
    """
    require_module(model)
    for example in (call, *more_calls):
        require_inference(model, (example.args, example.kwargs))
    twin = twin_of(model)
    if is_prepared(twin):
        del twin.forward  # That was for Dynamo; the core comes from the model's own.
    examples = [(example.args, example.kwargs) for example in (call, *more_calls)]
    with untouched(twin, examples):
        return _capture_twin(twin, call, dynamic_shapes, settings, more_calls)


def _capture_twin(
    twin: torch.nn.Module,
    call: Call,
    dynamic_shapes: Any,
    settings: Settings,
    more_calls: Sequence[Call],
) -> Captured:
    identity, recipe = identity_of(twin), recipe_of(twin)
    missed: list[Missed] = []
    outside: list[OutsideCall] = []
    static = dynamic_shapes is not None
    # A core for one size only does not take examples of others.
    wants_core = not dynamic_shapes and not (static and more_calls)
    if wants_core and recipe is not None and recipe.host_steps is not None:
        all_calls = [call, *more_calls]
        try:
            core = capture_core(twin, recipe, all_calls, settings.most_images, static=static)
            return Captured(twin, recipe, identity, [core], [], [])
        except CaptureError as error:
            row = _missed(twin, "", error)
            missed.append(replace(row, reason=f"as a core of fixed shapes: {row.reason}"))
    try:
        parts = [_whole(twin, recipe, call, dynamic_shapes, missed)]
    except CaptureError as error:
        if dynamic_shapes is not None:
            raise
        missed.append(_missed(twin, "", error))
        calls, watch = record_calls(twin, call)
        parts = _parts_below(twin, "", calls, missed)
        outside = watch.below([part.path for part in parts])
    others = [_whole(twin, recipe, example, None, missed) for example in more_calls]
    return Captured(twin, recipe, identity, parts, missed, outside, others)


def _whole(
    model: torch.nn.Module,
    recipe: Recipe | None,
    call: Call,
    dynamic_shapes: Any,
    missed: list[Missed],
) -> ModelPart:
    """Capture the whole model, by default with the dynamic sizes of its architecture's recipe.

    If that fails, the reason is added to `missed`, and the graph has the example's sizes only.
    """
    if recipe is not None and recipe.arguments is not None:
        call = Call(_arguments(recipe, call), call.kwargs)
    if dynamic_shapes is None and recipe is not None and recipe.dynamic_shapes is not None:
        try:
            return part_of(model, recipe, call, recipe.dynamic_shapes(*call.args), "")
        except CaptureError as error:
            row = _missed(model, "", error)
            missed.append(replace(row, reason=f"other sizes than the example's: {row.reason}"))
    return part_of(model, recipe, call, dynamic_shapes, "")


def _arguments(recipe: Recipe, call: Call) -> tuple[Any, ...]:
    assert recipe.arguments is not None
    try:
        return recipe.arguments(*call.args)
    except Exception as error:  # A recipe's function meets whatever the caller passed.
        raise CaptureError(f"the inputs are none of {recipe.architecture}: {error!r}") from error


def _parts_below(
    module: torch.nn.Module, path: str, calls: Mapping[str, Call], missed: list[Missed]
) -> list[ModelPart]:
    """Capture the largest submodules that can be; the others are added to `missed`."""
    parts: list[ModelPart] = []
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if (call := calls.get(child_path)) is not None:
            shapes = region_counts(call)
            try:
                parts.append(part_of(child, recipe_of(child), call, shapes, child_path))
                continue
            except CaptureError as error:
                missed.append(_missed(child, child_path, error))
        parts += _parts_below(child, child_path, calls, missed)
    return parts


def _missed(module: torch.nn.Module, path: str, error: CaptureError) -> Missed:
    return Missed(path, type(module).__name__, " ".join(str(error).split()))
