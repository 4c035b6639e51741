"""Compiles a model ahead of time: the whole if it exports, or else each part that does."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from typing_extensions import Unpack

from .accuracy.gate import Gate, Judge
from .accuracy.gated import Built, compile_within
from .accuracy.simulation import fresh
from .cache.plan_store import PlanStores
from .cache.store import PlanCache
from .capture.arguments import call_of
from .capture.example_run import watched_run
from .capture.kept_example import KeptExample
from .capture.model_parts import Captured, capture_model
from .capture.twin import require_module
from .capture.untouched import untouched
from .detection import Recipe, recipe_of
from .detection.prepared_forward import is_prepared
from .detection.recipes import with_recipe_components
from .engines.target import Target
from .errors import FxtrtError, SettingsError
from .graph.specs import Call
from .graph.weight_states import Snapshot
from .lowering.divide import Failures
from .lowering.lower import lower_model, normalize_model, preview_coverage
from .lowering.outcome import (
    Outcome,
    engine_weights,
    keep_outcome,
    outcome_of,
)
from .quantization.calibration import calibrate, known_scales
from .quantization.quantize import wants_int8
from .quantization.scale_table import ScaleTable
from .reporting import Coverage, missed_rows, outside_rows
from .reporting.jit_graphs import recorded_coverage
from .reporting.node_times import Reported, measured
from .reporting.serving_rows import guard_rows, runtime_rows
from .reporting.shortfall import shortfall
from .runtime.cuda_graphs import CALLS_TO_RECORD
from .runtime.detector_call import guarded
from .runtime.loaded_model import LoadedModel
from .runtime.slot import Slot
from .runtime.stitched_call import serve
from .settings import Options, Settings

__all__ = ["assemble", "compile", "report", "warm_up"]

log = logging.getLogger(__name__)


def compile(
    model: torch.nn.Module,
    inputs: Any = (),
    *,
    kwargs: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
    dynamic_shapes: Any = None,
    more_inputs: Sequence[Any] = (),
    calibration: Iterable[Any] | None = None,
    accuracy_gate: Gate | None = None,
    **overrides: Unpack[Options],
) -> torch.nn.Module:
    """Return a copy of `model` that runs what it can in engines, with the same weights.

    The whole model is captured through `torch.export`, a detector of a known architecture as its
    core or with equivalents of what it does with data (`fxtrt.detection`); where that fails, every
    largest submodule that exports is compiled in its place. The copy has the type, the attributes
    and the `state_dict` keys of `model`. Calls that differ from the example (other shapes, training
    mode, changed weights) run in PyTorch. The core of a detector takes any size in a range, and any
    number of images.

    Args:
        model: in eval mode.
        inputs: example arguments: a tuple of the positional ones. A tensor or a list is one
            argument. A dict holds keyword arguments where its keys are names of parameters of
            `forward`, as in `compile(model, processor(image))`, and else is one argument.
        kwargs: example keyword arguments. A call may later give an argument by position or by
            keyword, and give a default or leave it out: all these are the same call.
        dynamic_shapes: which sizes of the inputs vary, as `torch.export.export` takes it; the
            whole model must export then. None leaves it to the architecture's recipe, or else keeps
            all; `{}` keeps all.
        more_inputs: examples of calls of other structures, as of two images in a batch, each
            written like `inputs`: each has a graph and engines of its own. The whole model must
            export with them. The core of a detector takes up to as many images at once as the
            largest of them has.
        calibration: examples for `precision="int8"`, some 100 of what the model will see, each
            written like `inputs`, of any sizes that the graph takes. Their scales are kept in
            `cache_dir`: the same model with the same data is not calibrated again, unless the data
            is an iterator, which can be read only once.
        accuracy_gate: how much accuracy the compiled model may lose. What harms it is found by
            simulating precisions, and computes in a wider one; the report says what and why.
        overrides: fields of `Settings`.

    Raises:
        SettingsError, CaptureError, EngineUnavailable: with the way out.
        AccuracyError: nothing makes the compiled model pass the gate, or the gate cannot judge it.
    """
    require_module(model)
    settings = with_recipe_components(Settings.of(settings, overrides), model)
    target = Target.of(settings)
    call, more = call_of(model, inputs, kwargs), [call_of(model, one) for one in more_inputs]
    judge = None if accuracy_gate is None else Judge(accuracy_gate, model)
    captured = capture_model(model, call, dynamic_shapes, settings, more)
    if calibration is not None and not wants_int8(settings):
        raise SettingsError("calibration is for precision='int8', of the model or of a component")
    example = KeptExample(call)
    if judge is None:
        compiled = assemble(captured, target, calibration=calibration, example=example)
    else:
        compiled = _assemble_within(judge, captured, target, calibration, example)
    if warning := shortfall(report(compiled)):
        log.warning("%s", warning)
    return compiled


def assemble(
    captured: Captured,
    target: Target,
    stores: PlanStores = PlanCache.of,
    failures: Sequence[Failures] = (),
    scales: ScaleTable | None = None,
    calibration: Iterable[Any] | None = None,
    example: KeptExample | None = None,
) -> torch.nn.Module:
    """Lower the graphs of a captured model, and put guarded calls of them into the model.

    Args:
        stores: where plans and timings are kept.
        failures: what failed before in each of the graphs, if that is known.
        scales: what int8 computes with, if that is known.
        calibration: examples to find the scales with.
        example: the call that the model was captured with, if it is known.
    """
    normalize_model(captured, target.settings)
    if calibration is not None:
        scales = calibrate(captured, calibration, target.settings)
    elif scales is None and wants_int8(target.settings):
        scales = known_scales(captured, target.settings)
    lowered = lower_model(captured, target, stores, failures, scales)
    parts = [*captured.parts, *captured.others]
    cores = any(part.steps is not None for part in parts)
    calls = serve([one.graph for one in lowered], target.settings, cores=cores)
    reported = []
    for part, one, call in zip(parts, lowered, calls, strict=True):
        reported.append(Reported(one.coverage, call))
        # A model without code has nothing but its graph.
        if one.coverage.clusters or isinstance(part.module, LoadedModel):
            part.module.forward = guarded(part, one.graph, call, target.settings)
    compiled = captured.model
    snapshot = Snapshot(engine_weights(compiled), target.settings.check_weights)
    whole = reported[: len(captured.parts)]
    failed = [one.failures for one in lowered]
    kept = captured.without_values()
    outcome = Outcome(whole, kept, target, snapshot, failed, scales, example)
    keep_outcome(compiled, outcome)
    return compiled


def _assemble_within(
    judge: Judge,
    captured: Captured,
    target: Target,
    calibration: Iterable[Any] | None,
    example: KeptExample,
) -> torch.nn.Module:
    """Assemble a model that passes a gate."""
    normalized, scales = fresh(captured), None
    normalize_model(normalized, target.settings)
    if calibration is not None:
        scales = calibrate(normalized, calibration, target.settings)
    elif wants_int8(target.settings):
        scales = known_scales(normalized, target.settings)

    def build(captured: Captured, target: Target, failures: Sequence[Failures]) -> Built:
        compiled = assemble(captured, target, failures=failures, scales=scales, example=example)
        outcome = outcome_of(compiled)
        assert outcome is not None
        times = [row.engine_ms for one in outcome.reported for row in one.coverage.clusters]
        calls = [one.call for one in outcome.reported if one.call is not None]
        return Built(compiled, outcome, calls, outcome.failures, times)

    built, row = compile_within(judge, captured, target, build, scales)
    keep_outcome(built.model, replace(built.outcome, gate=row))
    return built.model


def report(
    model: torch.nn.Module,
    inputs: Any = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    measure: bool = False,
    **overrides: Unpack[Options],
) -> Coverage:
    """Report which parts of `model` run, or would run, in engines, and why the others do not.

    Args:
        model: what `fxtrt.compile` or `torch.compile` returned, or a plain model: then nothing is
            built and no GPU is needed.
        inputs, kwargs: example arguments, as in `compile`. A plain model needs them. What
            `torch.compile` returned is called with them, in the grad mode of the caller, which also
            finds the calls that run outside of any graph.
        measure: also run the graphs node by node on `inputs`, for the times.
        overrides: fields of `Settings`, for a plain model.

    Raises:
        FxtrtError: there is nothing to report on yet; says what to do.
    """
    if not isinstance(model, torch._dynamo.OptimizedModule):
        require_module(model)
    call = None
    if inputs is not None or kwargs is not None:
        call = call_of(model, () if inputs is None else inputs, kwargs)
    if measure and call is None:
        raise FxtrtError("to measure needs example inputs: report(model, inputs, measure=True)")
    if isinstance(model, torch._dynamo.OptimizedModule):
        return _report_jit(model, call, measure)
    outcome = outcome_of(model)
    if outcome is not None:
        # The rows are made before the calls that measure, which would count too.
        guards, reported = guard_rows(model), outcome.reported
        coverages: Sequence[Coverage] = [part.coverage for part in reported]
        if measure:
            assert call is not None
            with torch.no_grad(), untouched(model, call.args, call.kwargs):
                coverages = measured(reported, partial(model, *call.args, **call.kwargs))
        total = _total(outcome.captured, reported, coverages, timed=measure)
        return replace(total, guards=guards, gate=(outcome.gate,) if outcome.gate else ())
    if call is None:
        raise FxtrtError("a model that is not compiled needs example inputs: report(model, inputs)")
    settings = with_recipe_components(Settings.of(None, overrides), model)
    return _report_plain(model, call, measure, settings)


def warm_up(model: torch.nn.Module, *calls: Any, kwargs: Mapping[str, Any] | None = None) -> None:
    """Make all slots of a model, and in each the CUDA graphs of these calls, before serving.

    Without it, slots are made and shapes recorded when first needed, in the midst of requests.

    Args:
        model: what `fxtrt.compile` returned.
        calls: example arguments for each shape, written like the `inputs` of `compile`.
        kwargs: keyword arguments of every call, or of the only one where there are no `calls`.

    Raises:
        FxtrtError: the model is not one of `fxtrt.compile`.
        CaptureError: `forward` does not take the arguments.
    """
    outcome = outcome_of(model)
    if outcome is None:
        raise FxtrtError("warm_up takes what fxtrt.compile returned")
    if kwargs is not None and not calls:
        calls = ((),)
    written = [call_of(model, call, kwargs) for call in calls]

    def run(slot: Slot) -> None:
        for call in written:
            for _ in range(CALLS_TO_RECORD):
                model(*call.args, **call.kwargs)

    all_slots = {part.call.slots: None for part in outcome.reported if part.call is not None}
    with torch.no_grad(), untouched(model, calls):
        for slots in all_slots:
            slots.each(run)


def _report_plain(
    model: torch.nn.Module, call: Call, measure: bool, settings: Settings
) -> Coverage:
    target = Target.of(settings)
    captured = capture_model(model, call, None, settings)
    normalize_model(captured, settings)
    coverages = [preview_coverage(part.graph, target) for part in captured.parts]
    if not measure:
        return _total(captured, [], coverages)
    # The graphs are not stitched, but they are called and observed as stitched ones are.
    graphs = [part.graph for part in captured.parts]
    calls = serve(graphs, settings)

    def run() -> None:
        for part, call in zip(captured.parts, calls, strict=True):
            call(*part.call.args, **part.call.kwargs)

    values = [part.values() for part in captured.parts]
    reported = [Reported(one, call) for one, call in zip(coverages, calls, strict=True)]
    with torch.no_grad(), untouched(captured.model, graphs, values):
        return _total(captured, [], measured(reported, run), timed=True)


def _report_jit(model: torch._dynamo.OptimizedModule, call: Call | None, measure: bool) -> Coverage:
    with untouched(model, None if call is None else (call.args, call.kwargs)):
        if call is not None:
            model(*call.args, **call.kwargs)
        recorded = recorded_coverage(model, call if measure else None)
    if recorded is None:
        raise FxtrtError(
            "nothing is compiled yet: call the model once, then ask for the report. (Of two models "
            "of one class, Dynamo may give the second the graphs of the first, and their report.)"
        )
    is_broken = recorded.graph_breaks and not is_prepared(model._orig_mod)
    recipe = recipe_of(model._orig_mod) if is_broken else None
    if recipe is not None:
        recorded = replace(
            recorded, capture=(*recorded.capture, _better_than_jit(recipe, model._orig_mod))
        )
    if call is None:
        return recorded
    outside = watched_run(model, call).below(())
    rows = outside_rows(outside, recorded.graph_breaks, timed=measure)
    return replace(recorded, rejections=(*recorded.rejections, *rows))


def _better_than_jit(recipe: Recipe, model: torch.nn.Module) -> str:
    """Say what to do about the graph breaks of a detector."""
    advice = "fxtrt.compile(model, inputs) would make it one graph, which nothing breaks"
    has_core = recipe.host_steps is not None and not isinstance(recipe.host_steps(model), str)
    if has_core or recipe.glue:
        gain = "one graph that serves images of all sizes" if has_core else "fewer breaks"
        advice += f"; or call fxtrt.detection.prepare(model) before torch.compile, for {gain}"
    return advice


def _total(
    captured: Captured,
    served: Sequence[Reported],
    coverages: Sequence[Coverage],
    *,
    timed: bool = False,
) -> Coverage:
    """Add up the coverage of the whole model.

    Args:
        served: the parts that have slots, for the rows about serving.
    """
    total = Coverage.total(coverages)
    rows = outside_rows(captured.outside, timed=timed)
    return replace(
        total,
        rejections=(*total.rejections, *missed_rows(captured.missed), *rows),
        runtime=runtime_rows(served),
        capture=captured.how,
    )
