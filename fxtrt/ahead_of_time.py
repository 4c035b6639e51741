"""Compiles a model ahead of time: the whole where it exports, else each part that does."""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from .backend import lower, report_graph
from .calls import Call, record_calls, watched_run
from .capture import capture_module, require_inference
from .convert import input_specs
from .cuda_graphs import CALLS_TO_RECORD
from .detection import plan_of, planned
from .engines.network import TensorSpec
from .engines.select import select
from .errors import CaptureError, FxtrtError
from .guarded import GuardedForward
from .lists import require_matches
from .outside import OutsideCall
from .part_shapes import PartShapes, image_shapes, region_counts
from .pass_manager import run_passes
from .records import recorded_coverage
from .report import Coverage, RejectionRow, outside_rows
from .report.node_times import Lowered, measured
from .report.runtime import runtime_rows
from .settings import Settings
from .slots import Slot
from .stitched_call import serve

__all__ = ["capture_model", "compile", "report", "warm_up"]

log = logging.getLogger(__name__)

_OUTCOME = "_fxtrt_outcome"


def compile(
    model: torch.nn.Module,
    inputs: tuple[Any, ...],
    *,
    settings: Settings | None = None,
    dynamic_shapes: Any = None,
    **overrides: Any,
) -> torch.nn.Module:
    """A copy of `model` that runs what it can in engines; it shares its weights with `model`.

    The whole model is captured through `torch.export`, a detector of a known architecture with
    equivalents of what it does with data (`fxtrt.detection`); where that fails, every largest
    submodule that exports is compiled in its place. The copy has the type, the attributes and the
    `state_dict` keys of `model`. Calls that differ from the example (other shapes, training mode,
    changed weights) run in PyTorch; a detector's backbone and heads have engines for other image
    sizes too (the option `other_sizes`).

    Args:
        model: in eval mode.
        inputs: example positional arguments.
        dynamic_shapes: which sizes of the inputs vary, as `torch.export.export` takes it; the
            whole model must export then. None leaves it to the architecture's plan, or else keeps
            all; `{}` keeps all.
        overrides: fields of `Settings`.

    Raises:
        SettingsError, CaptureError, EngineUnavailable: with the way out.
    """
    settings = Settings.of(settings, overrides)
    backend = select(settings.engine)
    captured = capture_model(model, inputs, dynamic_shapes, settings)
    parts = [*captured.parts, *captured.others]
    built: list[tuple[GraphModule, Coverage]] = []
    for part in parts:
        built.append(lower(part.graph, backend, settings, part.values()))
        if settings.fuel is not None:
            settings = replace(settings, fuel=settings.fuel - len(built[-1][1].clusters))
    calls = serve([graph for graph, _ in built], settings)
    lowered = []
    for part, (graph, coverage), call in zip(parts, built, calls, strict=True):
        lowered.append(Lowered(coverage, graph, call))
        if coverage.clusters:
            part.module.forward = GuardedForward(part.module, graph, part.specs, part.call, call)
    compiled = captured.model
    reported = lowered[: len(captured.parts)]
    object.__setattr__(compiled, _OUTCOME, _Outcome(reported, captured.missed, captured.outside))
    return compiled


def report(
    model: torch.nn.Module,
    inputs: tuple[Any, ...] | None = None,
    *,
    measure: bool = False,
    **overrides: Any,
) -> Coverage:
    """What of `model` runs, or would run, where, and why.

    Args:
        model: what `fxtrt.compile` or `torch.compile` returned, or a plain model: then nothing is
            built and no GPU is needed.
        inputs: example arguments. A plain model needs them. What `torch.compile` returned is
            called with them, in the grad mode of the caller, which also finds the calls that run
            outside of any graph.
        measure: also run the graphs node by node on `inputs`, for the times.
        overrides: fields of `Settings`, for a plain model.

    Raises:
        FxtrtError: there is nothing to report on yet; says what to do.
    """
    if measure and inputs is None:
        raise FxtrtError("to measure needs example inputs: report(model, inputs, measure=True)")
    if isinstance(model, torch._dynamo.OptimizedModule):
        return _report_jit(model, inputs, measure)
    outcome: _Outcome | None = model.__dict__.get(_OUTCOME)
    if outcome is not None:
        if not measure:
            return outcome.total([part.coverage for part in outcome.lowered])
        assert inputs is not None
        with torch.no_grad():
            return outcome.total(measured(outcome.lowered, partial(model, *inputs)), timed=True)
    if inputs is None:
        raise FxtrtError("a model that is not compiled needs example inputs: report(model, inputs)")
    return _report_plain(model, inputs, measure, Settings.of(None, overrides))


def warm_up(model: torch.nn.Module, *calls: tuple[Any, ...]) -> None:
    """Make all slots of a model, and in each the CUDA graphs of these calls, before serving.

    Without it, slots are made and shapes recorded when first needed, in the midst of requests.

    Args:
        model: what `fxtrt.compile` returned.
        calls: example arguments, a tuple for each shape.

    Raises:
        FxtrtError: the model is not one of `fxtrt.compile`.
    """
    outcome: _Outcome | None = model.__dict__.get(_OUTCOME)
    if outcome is None:
        raise FxtrtError("warm_up takes what fxtrt.compile returned")

    def run(slot: Slot) -> None:
        for call in calls:
            for _ in range(CALLS_TO_RECORD):
                model(*call)

    all_slots = {part.call.slots: None for part in outcome.lowered if part.call is not None}
    with torch.no_grad():
        for slots in all_slots:
            slots.each(run)


def _report_plain(
    model: torch.nn.Module, inputs: tuple[Any, ...], measure: bool, settings: Settings
) -> Coverage:
    backend = select(settings.engine)
    captured = capture_model(model, inputs, None, replace(settings, other_sizes="pytorch"))
    lowered = [
        Lowered(report_graph(part.graph, backend, settings), part.graph) for part in captured.parts
    ]
    outcome = _Outcome(lowered, captured.missed, captured.outside)
    if not measure:
        return outcome.total([part.coverage for part in lowered])

    def run() -> None:
        for part in captured.parts:
            part.graph(*part.call.args, **part.call.kwargs)

    with torch.no_grad():
        return outcome.total(measured(lowered, run), timed=True)


def _report_jit(
    model: torch._dynamo.OptimizedModule, inputs: tuple[Any, ...] | None, measure: bool
) -> Coverage:
    if inputs is not None:
        model(*inputs)
    recorded = recorded_coverage(model, inputs if measure else None)
    if recorded is None:
        raise FxtrtError(
            "nothing is compiled yet: call the model once, then ask for the report. (Of two models "
            "of one class, Dynamo may give the second the graphs of the first, and their report.)"
        )
    if inputs is None:
        return recorded
    outside = watched_run(model, Call(inputs, {})).below(())
    rows = outside_rows(outside, recorded.graph_breaks, timed=measure)
    return replace(recorded, rejections=(*recorded.rejections, *rows))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a model's parts, and what no part holds.

    missed: the modules that could not be captured.
    outside: the calls that they make themselves.
    """

    lowered: Sequence[Lowered]
    missed: Sequence[RejectionRow]
    outside: Sequence[OutsideCall]

    def total(self, coverages: Sequence[Coverage], *, timed: bool = False) -> Coverage:
        """The coverage of the whole model."""
        total = Coverage.total(coverages)
        rows = outside_rows(self.outside, timed=timed)
        return replace(
            total,
            rejections=(*total.rejections, *self.missed, *rows),
            runtime=runtime_rows(self.lowered),
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """A module that was captured whole, ready to lower."""

    path: str
    module: torch.nn.Module
    graph: GraphModule
    call: Call
    specs: Sequence[TensorSpec]

    def values(self) -> list[Any]:
        """What the call passes, one value for each placeholder of the graph."""
        return pytree.tree_leaves((self.call.args, self.call.kwargs))


@dataclass(frozen=True, slots=True)
class _Captured:
    """A copy of a model, its parts, and what belongs to none, as in `_Outcome`.

    others: the parts of a detector that was captured whole, for images of other sizes.
    """

    model: torch.nn.Module
    parts: Sequence[_Part]
    missed: Sequence[RejectionRow]
    outside: Sequence[OutsideCall]
    others: Sequence[_Part] = ()


def capture_model(
    model: torch.nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any, settings: Settings
) -> _Captured:
    """The graphs of a copy of `model`, after the passes; arguments as in `compile`.

    Raises:
        SettingsError, CaptureError: with the way out.
    """
    if not isinstance(inputs, tuple):
        raise CaptureError(f"inputs must be a tuple of arguments, not {type(inputs).__name__}")
    require_inference(model, inputs)
    twin = _twin(model)
    call = Call(inputs, {})
    missed: list[RejectionRow] = []
    outside: list[OutsideCall] = []
    others: list[_Part] = []
    try:
        parts = [_whole(twin, call, dynamic_shapes, missed)]
        if dynamic_shapes is None and all(spec.is_static for spec in parts[0].specs):
            others = _parts_for_other_sizes(twin, call, settings)
    except CaptureError as error:
        if dynamic_shapes is not None:
            raise
        missed.append(_missed(twin, "", error))
        calls, watch = record_calls(twin, call)
        parts = _parts_below(twin, "", calls, missed, region_counts)
        outside = watch.below([part.path for part in parts])
    for part in (*parts, *others):
        run_passes(part.graph)
    nodes = [node for part in parts for node in part.graph.graph.nodes]
    require_matches(settings.patterns, nodes)
    return _Captured(twin, parts, missed, outside, others)


def _parts_for_other_sizes(model: torch.nn.Module, call: Call, settings: Settings) -> list[_Part]:
    """The parts of a detector that has a plan, with dynamic heights and widths."""
    if plan_of(model) is None or settings.other_sizes != "parts" or settings.fuel is not None:
        return []
    calls, _ = record_calls(model, call)
    shapes = image_shapes(calls, settings.max_growth or 1)
    missed: list[RejectionRow] = []
    parts = [] if shapes is None else _parts_below(model, "", calls, missed, shapes)
    for row in missed:
        log.info("%s is not captured for other image sizes: %s", row.module, row.detail)
    return parts


def _whole(
    model: torch.nn.Module, call: Call, dynamic_shapes: Any, missed: list[RejectionRow]
) -> _Part:
    """The whole model; where it is not told, the sizes vary that its architecture's plan says.

    Where they cannot, that is added to `missed`, and the example's sizes are the only ones.
    """
    plan = plan_of(model)
    if dynamic_shapes is None and plan is not None and plan.dynamic_shapes is not None:
        try:
            return _part(model, call, plan.dynamic_shapes(*call.args), "")
        except CaptureError as error:
            row = _missed(model, "", error)
            missed.append(replace(row, detail=f"other sizes than the example's: {row.detail}"))
    return _part(model, call, dynamic_shapes, "")


def _parts_below(
    module: torch.nn.Module,
    path: str,
    calls: Mapping[str, Call],
    missed: list[RejectionRow],
    shapes_of: PartShapes,
) -> list[_Part]:
    """The largest submodules that can be captured; what cannot is added to `missed`."""
    parts: list[_Part] = []
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


def _part(module: torch.nn.Module, call: Call, dynamic_shapes: Any, path: str) -> _Part:
    args, kwargs = _unmarked((call.args, call.kwargs))
    with _without_hooks(module), planned(module):
        graph = capture_module(module, args, kwargs, dynamic_shapes, path)
    # GuardedForward asks first, and what does not fit runs in PyTorch.
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    return _Part(path, module, graph, call, input_specs(graph))


def _unmarked(values: Any) -> Any:
    """The same tensors as new objects: torch.export marks those that it is given, and a second try
    would obey the marks of the first."""
    known: dict[int, torch.Tensor] = {}
    return pytree.tree_map_only(
        torch.Tensor, lambda tensor: known.setdefault(id(tensor), tensor.detach()), values
    )


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


def _missed(module: torch.nn.Module, path: str, error: CaptureError) -> RejectionRow:
    return RejectionRow(
        node=path or type(module).__name__,
        target=type(module).__name__,
        code="capture",
        detail=str(error),
        module=path,
        source="",
        flops=0,
        computes=False,
    )


def _twin(model: torch.nn.Module) -> torch.nn.Module:
    """A deep copy of the modules that shares every tensor with `model`."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
