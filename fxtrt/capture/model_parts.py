"""Turns a model into graphs: one of the whole if it exports, else one of each largest part."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..detection import Recipe, recipe_of
from ..detection.substitution import substituted
from ..errors import ArtifactError, CaptureError
from ..graph.specs import Call, TensorSpec, tensor_specs
from ..serialization.graph_data import StoredGraph, store
from ..serialization.model_identity import Identity, identity_of
from ..settings import Settings
from .attributes import attributes_kept
from .copies import distinct
from .example_run import record_calls
from .export import capture_module, require_inference
from .part_sizes import (
    PartShapes,
    image_shapes,
    region_counts,
)
from .repeatable import repeatable
from .twin import require_module, twin_of
from .uncaptured import OutsideCall
from .untouched import untouched

__all__ = ["Captured", "Missed", "ModelPart", "capture_model"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A module that was captured whole, ready to be lowered.

    recipe: of the module's class, if there is one.
    stored: the graph before the passes as data to save, or why it cannot be saved.
    """

    path: str
    module: torch.nn.Module
    graph: GraphModule
    call: Call
    specs: Sequence[TensorSpec]
    recipe: Recipe | None
    stored: StoredGraph | ArtifactError

    def values(self) -> list[Any]:
        """Return the values of the example call, one for each placeholder of the graph."""
        return pytree.tree_leaves((self.call.args, self.call.kwargs))

    @property
    def has_values(self) -> bool:
        """Whether the tensors of the call have values; those of a restored graph have not."""
        return not any(isinstance(v, torch.Tensor) and v.is_meta for v in self.values())

    def without_values(self) -> ModelPart:
        """Return the same part with a call whose tensors take no memory."""

        def blank(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(tensor, device="meta")

        args, kwargs = pytree.tree_map_only(
            torch.Tensor, blank, (tuple(self.call.args), dict(self.call.kwargs))
        )
        return replace(self, call=Call(args, kwargs))


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
    others:   parts of a detector that was captured whole, for other sizes or numbers of images;
              and more graphs of the whole, for calls of other structures.
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
        if [part.path for part in self.parts] != [""]:
            paths = ", ".join(part.path for part in self.parts) or "none"
            lines = [f"captured in parts, since the whole does not export: {paths}"]
        elif self.recipe is not None:
            lines = [f"captured whole, by the recipe of {self.recipe.architecture}"]
        else:
            lines = ["captured whole"]
        if paths := ", ".join(part.path for part in self.others if part.path):
            lines.append(f"with engines for images in other sizes or numbers in {paths}")
        if count := sum(not part.path for part in self.others):
            lines.append(f"with {count} more graphs, for calls of other structures")
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
    others: list[ModelPart] = []
    try:
        parts = [_whole(twin, recipe, call, dynamic_shapes, missed)]
        if dynamic_shapes is None and recipe is not None:
            others = _parts_for_other_calls(twin, call, settings, parts[0].specs)
    except CaptureError as error:
        if dynamic_shapes is not None:
            raise
        missed.append(_missed(twin, "", error))
        calls, watch = record_calls(twin, call)
        parts = _parts_below(twin, "", calls, missed, region_counts)
        outside = watch.below([part.path for part in parts])
    others += [_whole(twin, recipe, example, None, missed) for example in more_calls]
    return Captured(twin, recipe, identity, parts, missed, outside, others)


def _parts_for_other_calls(
    model: torch.nn.Module, call: Call, settings: Settings, whole: Sequence[TensorSpec]
) -> list[ModelPart]:
    """Capture the parts of a detector that has a recipe, for other sizes and numbers of images.

    Args:
        whole: the inputs of the graph of the whole. If it takes any size and `most_images` is 1,
            it serves all calls, and there are no parts.
    """
    if settings.other_sizes != "parts" or settings.fuel is not None:
        return []
    longest = max((high or 0 for spec in whole for high in _varying(spec)), default=0)
    if longest and settings.most_images == 1:
        return []
    calls = _calls_of_parts(model, call, settings.most_images)
    shapes = image_shapes(calls, settings.max_growth or 1, settings.most_images, longest)
    missed: list[Missed] = []
    parts = [] if shapes is None else _parts_below(model, "", calls, missed, shapes)
    for row in missed:
        log.info("%s is not captured for other images: %s", row.module, row.reason)
    return parts


def _varying(spec: TensorSpec) -> Iterator[int | None]:
    """Return the upper bounds of the dynamic sizes."""
    return (high for low, high in zip(spec.low, spec.high, strict=True) if low != high)


def _calls_of_parts(model: torch.nn.Module, call: Call, most_images: int) -> dict[str, Call]:
    """Return how the parts are called, with two images or more if calls may have as many."""
    first = call.args[0] if call.args else None
    if most_images > 1 and isinstance(first, (list, tuple)) and len(first) == 1:
        twice = Call(([*first, *first], *call.args[1:]), call.kwargs)
        try:
            return record_calls(model, twice)[0]
        except Exception as error:  # The model of a registered recipe may take no list of images.
            log.info("%s takes no two images: %r", type(model).__name__, error)
    return record_calls(model, call)[0]


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
            return _part(model, recipe, call, recipe.dynamic_shapes(*call.args), "")
        except CaptureError as error:
            row = _missed(model, "", error)
            missed.append(replace(row, reason=f"other sizes than the example's: {row.reason}"))
    return _part(model, recipe, call, dynamic_shapes, "")


def _arguments(recipe: Recipe, call: Call) -> tuple[Any, ...]:
    assert recipe.arguments is not None
    try:
        return recipe.arguments(*call.args)
    except Exception as error:  # A recipe's function meets whatever the caller passed.
        raise CaptureError(f"the inputs are none of {recipe.architecture}: {error!r}") from error


def _parts_below(
    module: torch.nn.Module,
    path: str,
    calls: Mapping[str, Call],
    missed: list[Missed],
    shapes_of: PartShapes,
) -> list[ModelPart]:
    """Capture the largest submodules that can be; the others are added to `missed`."""
    parts: list[ModelPart] = []
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        call = calls.get(child_path)
        if call is None:
            parts += _parts_below(child, child_path, calls, missed, shapes_of)
            continue
        shapes = shapes_of(child, call)
        if shapes is False:
            parts += _parts_below(child, child_path, calls, missed, shapes_of)
            continue
        try:
            parts.append(_part(child, recipe_of(child), call, shapes, child_path))
        except CaptureError as error:
            missed.append(_missed(child, child_path, error))
            parts += _parts_below(child, child_path, calls, missed, shapes_of)
    return parts


def _part(
    module: torch.nn.Module, recipe: Recipe | None, call: Call, dynamic_shapes: Any, path: str
) -> ModelPart:
    weights = [*module.parameters(), *module.buffers()]
    args, kwargs = distinct((call.args, call.kwargs), weights)
    # Attributes are restored here; tracing writes to no values.
    with (
        _without_hooks(module),
        attributes_kept(module),
        repeatable(module, call),
        substituted({} if recipe is None else recipe.equivalents),
    ):
        graph = capture_module(module, args, kwargs, dynamic_shapes, path)
    # GuardedForward checks the inputs instead: calls that do not fit run in PyTorch.
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    stored = _stored(graph, module, call)
    return ModelPart(path, module, graph, call, tensor_specs(graph), recipe, stored)


def _stored(graph: GraphModule, module: torch.nn.Module, call: Call) -> StoredGraph | ArtifactError:
    # The graph is stored now, because passes and lowering change it. This takes some 0.1 s.
    try:
        return store(graph, module, call)
    except ArtifactError as error:
        return error


@contextmanager
def _without_hooks(module: torch.nn.Module) -> Iterator[None]:
    """Leave a module's hooks out of its graph: only `forward` is replaced, so they still run."""
    names = ("_forward_hooks", "_forward_pre_hooks")
    hooks = {name: module.__dict__[name] for name in names}
    module.__dict__.update({name: OrderedDict() for name in names})
    try:
        yield
    finally:
        module.__dict__.update(hooks)


def _missed(module: torch.nn.Module, path: str, error: CaptureError) -> Missed:
    return Missed(path, type(module).__name__, " ".join(str(error).split()))
