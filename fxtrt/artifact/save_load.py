"""Saves a compiled model without its weights, and loads it around a model without capturing it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule
from typing_extensions import Unpack

from ..ahead_of_time import (
    Outcome,
    assemble,
    note_gate,
    outcome_of,
    report,
    weights_hold,
)
from ..cache.engine_key import EngineKey
from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..capture.export import require_inference
from ..capture.model_part import ModelPart
from ..capture.model_parts import Captured
from ..capture.twin import twin_of
from ..detection import Recipe, recipe_of
from ..detection.host_steps import HostSteps
from ..engines.base import EngineBackend
from ..engines.target import Target
from ..errors import (
    ArtifactError,
    ConversionError,
    EngineError,
    SettingsError,
)
from ..graph.specs import tensor_specs
from ..lowering.divide import Failures
from ..lowering.lower import normalize, preview
from ..lowering.self_check import checks_engines
from ..quantization.quantize import quantize
from ..quantization.scale_table import ScaleTable
from ..reporting import GateRow
from ..runtime.stitched_call import engine_modules
from ..serialization.allowed_operators import untrusted
from ..serialization.constant_data import (
    read_constants,
    write_constants,
)
from ..serialization.graph_data import (
    StoredGraph,
    restore,
    store,
)
from ..serialization.model_identity import (
    difference,
    identity_of,
    weights_digest,
)
from ..serialization.typed_json import parse, typed
from ..settings import Options
from .archive import ArtifactFile, write_artifact
from .manifest import OF_SERVING, PORTABLE, Manifest, settings_of
from .stored_plans import (
    PLAN_KINDS,
    plan_name,
    plans_of,
)

__all__ = ["load", "save"]

log = logging.getLogger(__name__)


def save(compiled: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the graphs and plans of a compiled model to one file, for `fxtrt.load`.

    The file has no weights, only a digest of them. It is written beside `path` and moved there.

    Args:
        compiled: what `fxtrt.compile` returned, whose plans are in its `cache_dir`.

    Raises:
        ArtifactError: the model cannot be saved; the message says why, and what would help.
        OSError: the file cannot be written.
    """
    outcome = outcome_of(compiled)
    if outcome is None:
        raise ArtifactError("fxtrt.save takes what fxtrt.compile returned")
    captured, settings = outcome.captured, outcome.target.settings
    if settings.fuel is not None:
        raise ArtifactError("fuel is for finding faults: compile without it to save the model")
    if not weights_hold(compiled):
        raise ArtifactError("a weight was changed after compiling: compile again, then save")
    all_parts = [*captured.parts, *captured.others]
    stored = [_checked(part) for part in all_parts]
    parts, contents = list[Any](), list[tuple[str, bytes]]()
    for number, ((part, graph, _), failures) in enumerate(
        zip(stored, outcome.failures, strict=True)
    ):
        forms, data = write_constants(graph.constants)
        contents.append((f"graphs/{number}.json", graph.text))
        contents.append((f"graphs/{number}.constants", data))
        row = {"path": part.path, "core": part.steps is not None, "constants": forms}
        left = [{name: asdict(why) for name, why in one.items()} for one in failures]
        parts.append({**row, "failures": left})
    for name in captured.identity["unseen"]:
        log.info("fxtrt.load will not see whether the content of %s is the same", name)
    plans: dict[str, Any] = {}
    manifest = {
        "model": captured.identity,
        "weights": weights_digest(compiled),
        "engine": _engine(outcome.target.backend),
        "settings": {name: getattr(settings, name) for name in PORTABLE},
        "parts": parts,
        "whole": len(captured.parts),
        "missed": list(map(asdict, captured.missed)),
        "outside": list(map(asdict, captured.outside)),
        "plans": plans,
        "scales": "" if outcome.scales is None else outcome.scales.to_json(),
        "gate": None if outcome.gate is None else asdict(outcome.gate),
    }
    typed(parse(json.dumps(manifest).encode(), "the manifest"), Manifest, "the manifest")
    write_artifact(Path(path), manifest, chain(contents, _plans(outcome, stored, plans)))


def load(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    *,
    operators: Collection[str] = (),
    **overrides: Unpack[Options],
) -> torch.nn.Module:
    """Return what `fxtrt.compile` returned before it was saved, made from `model`.

    Nothing is captured. `model` must be the same as the one that was compiled: its classes and
    their sources, what its modules hold, its weights and the versions of all packages are compared.
    Global variables and other modules of yours that its code reads are not compared. If the GPU or
    TensorRT is another one, or overrides change the engines, these are built anew.

    The graphs in the file are checked before any is compiled: they may only call operators that
    compute. Plans cannot be checked like this, because they are code to TensorRT. Load only files
    that you trust.

    Args:
        path: the path of a file that `fxtrt.save` wrote.
        operators: names, such as "package.name.default", of your own operators without a converter
            that the file may call.
        overrides: fields of `Settings` that replace those that the model was compiled with.

    Raises:
        ArtifactError: the file is damaged, or of another model or version; the message says what
            differs.
        SettingsError: an override needs the model to be compiled again.
        CaptureError: the model is in training mode.
        EngineUnavailable: there is no such engine here.
        EngineError, ConversionError: with `on_build_failure="raise"` only.
        OSError: the file cannot be read.
    """
    require_inference(model, ())
    with ArtifactFile(Path(path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {path}")
        settings = settings_of(manifest, overrides)
        target = Target.of(settings)
        twin = twin_of(model)
        _require_same(path, manifest, twin)
        captured = _captured(path, file, manifest, twin, operators)
        stores: PlanStores = PlanCache.of
        failures: list[Failures] = []
        gate: GateRow | None = None
        if _engine(target.backend) != manifest["engine"]:
            log.warning("%s has engines for %s: building others", path, manifest["engine"])
        elif not any(name in PORTABLE and name not in OF_SERVING for name in overrides):
            stores = plans_of(file, manifest["plans"])
            failures = [part["failures"] for part in manifest["parts"]]
            gate = manifest["gate"]
        scales = _scales(path, manifest)
        loaded = _compiled(captured, target, stores, failures, scales, overridden=bool(overrides))
        note_gate(loaded, gate)
    if stores is not PlanCache.of:
        _warn_of_missing_plans(path, loaded, target.backend)
    return loaded


def _compiled(
    captured: Captured,
    target: Target,
    stores: PlanStores,
    failures: Sequence[Failures],
    scales: ScaleTable | None,
    *,
    overridden: bool,
) -> torch.nn.Module:
    """Compile the graphs of a file.

    Args:
        overridden: whether the caller overrides settings, and so may have given a wrong one.
    """
    try:
        return assemble(captured, target, stores, failures, scales)
    except OSError:
        raise
    except Exception as error:
        is_wanted = isinstance(error, (EngineError, ConversionError)) and (
            "raise" in (target.settings.on_build_failure, target.settings.self_check)
        )
        if is_wanted or (overridden and isinstance(error, SettingsError)):
            raise
        # A forged graph may be wrong in ways that only the passes notice.
        raise ArtifactError(
            f"its graphs do not compile ({type(error).__name__}: {error})"
        ) from error


def _checked(part: ModelPart) -> tuple[ModelPart, StoredGraph, GraphModule]:
    """Check that the part's stored graph can be restored; return it with what it restores to."""
    name = part.path or type(part.module).__name__
    if isinstance(part.stored, ArtifactError):
        raise ArtifactError(f"the graph of {name} cannot be saved: {part.stored}") from part.stored
    graph, call = restore(part.stored, part.module, trusted=None)
    again = store(graph, part.module, call)
    if again.text != part.stored.text:
        raise ArtifactError(f"the graph of {name} cannot be saved: it comes back another one")
    if foreign := untrusted(graph.graph):
        log.warning("to load the graph of %s needs fxtrt.load(..., operators=%s)", name, foreign)
    return part, part.stored, graph


def _plans(
    outcome: Outcome,
    stored: Sequence[tuple[ModelPart, StoredGraph, GraphModule]],
    headers: dict[str, Any],
) -> Iterator[tuple[str, bytes]]:
    """Yield the plans, timings and checks that compiling the parts again would ask for, by name.

    Args:
        stored: the parts with their restored graphs, which are changed.
        headers: a dict that gets the headers of the plans.

    Raises:
        ArtifactError: the cache has lost the plan of one of the engines.
    """
    target = outcome.target
    if not target.backend.plans:
        return
    stores = {kind: PlanCache.of(target.settings, kind) for kind in PLAN_KINDS}
    for (part, _, graph), failures in zip(stored, outcome.failures, strict=True):
        for kind, key, cluster in _keys(graph, target, failures, outcome.scales):
            store_of_kind, name = stores[kind], plan_name(kind, key)
            if store_of_kind is None:
                raise ArtifactError(
                    "cache_dir=None keeps no plans: compile with a cache_dir to save them"
                )
            if name in headers:
                continue
            if (found := store_of_kind.get(key)) is not None:
                headers[name] = asdict(found.header)
                yield name, found.plan
            elif kind == "plan" and cluster in {m.name for m in engine_modules([part.graph])}:
                raise ArtifactError(
                    f"the plan of {cluster} has left {target.settings.cache_dir}: compile again, "
                    f"with a larger cache_limit_bytes"
                )


def _keys(
    graph: GraphModule, target: Target, failures: Failures, scales: ScaleTable | None
) -> Iterator[tuple[str, EngineKey, str]]:
    """Yield what compiling `graph`, as it was captured, asks for: kind, key and cluster."""
    normalize(graph, target.settings)
    quantize(graph, target, scales)
    wanted = {"plan": True, "timing": target.settings.partition == "measured"}
    wanted["check"] = checks_engines(target)
    kinds = [kind for kind in PLAN_KINDS if wanted[kind]]
    _, clusters = preview(graph, target, failures)
    for one in clusters:
        key = EngineKey.of(one.module, target.with_settings(one.cluster.settings))
        yield from ((kind, key, one.cluster.name) for kind in kinds)


def _warn_of_missing_plans(
    path: str | os.PathLike[str], loaded: torch.nn.Module, backend: EngineBackend
) -> None:
    for row in report(loaded).clusters:
        if backend.plans and row.build is not None and not row.build.cached:
            log.warning("%s had no good plan of %s: save the model again", path, row.name)


def _scales(path: str | os.PathLike[str], manifest: Manifest) -> ScaleTable | None:
    if not manifest["scales"]:
        return None
    try:
        return ScaleTable.from_json(manifest["scales"], f"the table of scales in {path}")
    except SettingsError as error:
        raise ArtifactError(str(error)) from error


def _engine(backend: EngineBackend) -> dict[str, str]:
    return {"name": backend.name, "runs on": backend.fingerprint}


def _require_same(path: str | os.PathLike[str], manifest: Manifest, model: torch.nn.Module) -> None:
    way_out = "compile the model again and save it"
    for part in manifest["parts"]:
        if part["path"] not in manifest["model"]["modules"]:
            raise ArtifactError(f"{path} has a part {part['path']!r} that its model does not have")
    if found := difference(manifest["model"], identity_of(model)):
        raise ArtifactError(f"{path} does not fit this model: {found}; {way_out}")
    if weights_digest(model) != manifest["weights"]:
        raise ArtifactError(f"{path} was saved with other weights than this model's: {way_out}")


def _steps(
    path: str | os.PathLike[str], recipe: Recipe | None, model: torch.nn.Module
) -> HostSteps:
    """Return the host steps around the core of a detector."""
    steps = None if recipe is None or recipe.host_steps is None else recipe.host_steps(model)
    if steps is None or isinstance(steps, str):
        raise ArtifactError(
            f"{path} has the core of a detector, and {type(model).__name__} has none: "
            f"{steps or 'no recipe of its architecture names one'}"
        )
    return steps


def _captured(
    path: str | os.PathLike[str],
    file: ArtifactFile,
    manifest: Manifest,
    model: torch.nn.Module,
    operators: Collection[str],
) -> Captured:
    parts = []
    for number, row in enumerate(manifest["parts"]):
        module = model.get_submodule(row["path"])
        constants = read_constants(row["constants"], file.read(f"graphs/{number}.constants"))
        stored = StoredGraph(file.read(f"graphs/{number}.json"), constants)
        graph, call = restore(stored, module, operators)
        loaded = ArtifactError("it was loaded from a file: copy that one")
        recipe, specs = recipe_of(module), tensor_specs(graph)
        steps = _steps(path, recipe, module) if row["core"] else None
        parts.append(ModelPart(row["path"], module, graph, call, specs, recipe, loaded, steps))
    whole = manifest["whole"]
    if not 0 <= whole <= len(parts):
        raise ArtifactError(f"of {len(parts)} parts, {whole} come first")
    return Captured(
        model,
        recipe_of(model),
        manifest["model"],
        parts[:whole],
        manifest["missed"],
        manifest["outside"],
        parts[whole:],
    )
