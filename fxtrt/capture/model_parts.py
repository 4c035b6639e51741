"""Captures a model: the whole where it exports, else each largest part that does."""

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

from ..detection import (
    Recipe,
    recipe_of,
    with_equivalents,
)
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
    """A module that was captured whole, ready to lower.

    stored: the graph before the passes, to be saved; or why that cannot be.
    """

    path: str
    module: torch.nn.Module
    graph: GraphModule
    call: Call
    specs: Sequence[TensorSpec]
    stored: StoredGraph | ArtifactError

    def values(self) -> list[Any]:
        """What the call passes, one value for each placeholder of the graph."""
        return pytree.tree_leaves((self.call.args, self.call.kwargs))

    @property
    def has_values(self) -> bool:
        """Whether the tensors of the call do; those of a restored graph have shapes only."""
        return not any(isinstance(v, torch.Tensor) and v.is_meta for v in self.values())

    def without_values(self) -> ModelPart:
        """The same, without the memory of the call's tensors."""

        def blank(tensor: torch.Tensor) -> torch.Tensor:
            return torch.empty_like(tensor, device="meta")

        args, kwargs = pytree.tree_map_only(
            torch.Tensor, blank, (tuple(self.call.args), dict(self.call.kwargs))
        )
        return replace(self, call=Call(args, kwargs))


@dataclass(frozen=True, slots=True)
class Missed:
    """A module that could not be captured.

    module: its path in the model, "" for the model itself.
    kind:   the name of its class.
    reason: one line.
    """

    module: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Captured:
    """A copy of a model, its parts, and what belongs to none of them.

    identity: of the model before it was captured, as `identity_of` gives it.
    missed:   the modules that could not be captured.
    outside:  the calls that they make themselves.
    others:   the parts of a detector that was captured whole, for images of other sizes or in
              another number; and the whole again, for calls of other structures.
    """

    model: torch.nn.Module
    identity: Identity
    parts: Sequence[ModelPart]
    missed: Sequence[Missed]
    outside: Sequence[OutsideCall]
    others: Sequence[ModelPart] = ()

    @property
    def how(self) -> tuple[str, ...]:
        """For the report, a line each: the whole or which parts, by which plan."""
        plan = recipe_of(self.model)
        if [part.path for part in self.parts] != [""]:
            paths = ", ".join(part.path for part in self.parts) or "none"
            lines = [f"captured in parts, since the whole does not export: {paths}"]
        elif plan is not None:
            lines = [f"captured whole, by the plan of {plan.architecture}"]
        else:
            lines = ["captured whole"]
        if paths := ", ".join(part.path for part in self.others if part.path):
            lines.append(f"with engines for images in other sizes or numbers in {paths}")
        if count := sum(not part.path for part in self.others):
            lines.append(f"with {count} more graphs, for calls of other structures")
        return tuple(lines)

    def without_values(self) -> Captured:
        """The same, without the memory of the example's tensors."""
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
        SettingsError, CaptureError: with the way out.
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
    identity = identity_of(twin)
    missed: list[Missed] = []
    outside: list[OutsideCall] = []
    others: list[ModelPart] = []
    try:
        parts = [_whole(twin, call, dynamic_shapes, missed)]
        if dynamic_shapes is None:
            others = _parts_for_other_calls(twin, call, settings, parts[0].specs)
    except CaptureError as error:
        if dynamic_shapes is not None:
            raise
        missed.append(_missed(twin, "", error))
        calls, watch = record_calls(twin, call)
        parts = _parts_below(twin, "", calls, missed, region_counts)
        outside = watch.below([part.path for part in parts])
    others += [_whole(twin, example, None, missed) for example in more_calls]
    return Captured(twin, identity, parts, missed, outside, others)


def _parts_for_other_calls(
    model: torch.nn.Module, call: Call, settings: Settings, whole: Sequence[TensorSpec]
) -> list[ModelPart]:
    """The parts of a detector that has a plan, with dynamic heights, widths and numbers of images.

    Args:
        whole: what the graph of the whole takes. Where it takes any size, and `most_images` is one,
            there are no other calls.
    """
    if recipe_of(model) is None or settings.other_sizes != "parts" or settings.fuel is not None:
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
    """The upper bounds of the sizes that vary."""
    return (high for low, high in zip(spec.low, spec.high, strict=True) if low != high)


def _calls_of_parts(model: torch.nn.Module, call: Call, most_images: int) -> dict[str, Call]:
    """How the parts are called, for two images or more where there may be as many."""
    first = call.args[0] if call.args else None
    if most_images > 1 and isinstance(first, (list, tuple)) and len(first) == 1:
        twice = Call(([*first, *first], *call.args[1:]), call.kwargs)
        try:
            return record_calls(model, twice)[0]
        except Exception as error:  # What a registered plan's model takes may be no list of images.
            log.info("%s takes no two images: %r", type(model).__name__, error)
    return record_calls(model, call)[0]


def _whole(
    model: torch.nn.Module, call: Call, dynamic_shapes: Any, missed: list[Missed]
) -> ModelPart:
    """The whole model; where it is not told, the sizes vary that its architecture's plan says.

    Where they cannot, that is added to `missed`, and the example's sizes are the only ones.
    """
    plan = recipe_of(model)
    if plan is not None and plan.arguments is not None:
        call = Call(_arguments(plan, call), call.kwargs)
    if dynamic_shapes is None and plan is not None and plan.dynamic_shapes is not None:
        try:
            return _part(model, call, plan.dynamic_shapes(*call.args), "")
        except CaptureError as error:
            row = _missed(model, "", error)
            missed.append(replace(row, reason=f"other sizes than the example's: {row.reason}"))
    return _part(model, call, dynamic_shapes, "")


def _arguments(plan: Recipe, call: Call) -> tuple[Any, ...]:
    assert plan.arguments is not None
    try:
        return plan.arguments(*call.args)
    except Exception as error:  # A plan's function meets whatever the caller passed.
        raise CaptureError(f"the inputs are none of {plan.architecture}: {error!r}") from error


def _parts_below(
    module: torch.nn.Module,
    path: str,
    calls: Mapping[str, Call],
    missed: list[Missed],
    shapes_of: PartShapes,
) -> list[ModelPart]:
    """The largest submodules that can be captured; what cannot is added to `missed`."""
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
            parts.append(_part(child, call, shapes, child_path))
        except CaptureError as error:
            missed.append(_missed(child, child_path, error))
            parts += _parts_below(child, child_path, calls, missed, shapes_of)
    return parts


def _part(module: torch.nn.Module, call: Call, dynamic_shapes: Any, path: str) -> ModelPart:
    weights = [*module.parameters(), *module.buffers()]
    args, kwargs = distinct((call.args, call.kwargs), weights)
    # Attributes only: values are not written to while tracing.
    with (
        _without_hooks(module),
        attributes_kept(module),
        repeatable(module, call),
        with_equivalents(module),
    ):
        graph = capture_module(module, args, kwargs, dynamic_shapes, path)
    # GuardedForward asks first, and what does not fit runs in PyTorch.
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    return ModelPart(path, module, graph, call, tensor_specs(graph), _stored(graph, module, call))


def _stored(graph: GraphModule, module: torch.nn.Module, call: Call) -> StoredGraph | ArtifactError:
    # Now, because the passes and the engines take the graph apart. It takes some 0.1 s.
    try:
        return store(graph, module, call)
    except ArtifactError as error:
        return error


@contextmanager
def _without_hooks(module: torch.nn.Module) -> Iterator[None]:
    """Only `forward` is replaced: the module's own hooks go on being called around it."""
    names = ("_forward_hooks", "_forward_pre_hooks")
    hooks = {name: module.__dict__[name] for name in names}
    module.__dict__.update({name: OrderedDict() for name in names})
    try:
        yield
    finally:
        module.__dict__.update(hooks)


def _missed(module: torch.nn.Module, path: str, error: CaptureError) -> Missed:
    return Missed(path, type(module).__name__, " ".join(str(error).split()))
