"""Saves a compiled model, and loads it without capturing it: around a model, or alone."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.fx import GraphModule
from typing_extensions import Unpack

from ..ahead_of_time import assemble, report
from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..capture.export import require_inference
from ..capture.model_part import ModelPart
from ..capture.model_parts import Captured
from ..capture.twin import twin_of
from ..detection.host_steps import CallSteps
from ..engines.base import EngineBackend
from ..engines.target import Target
from ..errors import ArtifactError, ConversionError, EngineError, SettingsError
from ..graph.specs import TensorSpec
from ..lowering.divide import Failures
from ..lowering.outcome import note_gate, outcome_of, weights_hold
from ..quantization.scale_table import ScaleTable
from ..reporting import GateRow
from ..serialization.allowed_operators import untrusted
from ..serialization.constant_data import write_constants
from ..serialization.graph_data import restore, store
from ..serialization.model_identity import CODE, versions_now, weights_digest
from ..serialization.typed_json import parse, typed
from ..settings import Options
from .alone import alone_of, differing_versions, loaded_model, loaded_steps
from .archive import ArtifactFile, write_artifact
from .manifest import OF_SERVING, PORTABLE, Manifest, settings_of
from .restored import captured_of, require_same, steps_of_model
from .stored_plans import REBUILD, Stored, plans_of, plans_to_save

__all__ = ["load", "save"]

log = logging.getLogger(__name__)

_ANSWERS = Literal["plain", "detectron2"]
_VERSIONS = ("torch", "fxtrt", CODE)
"""The settings that the answers of a file that serves alone depend on, besides its engines."""


def save(compiled: torch.nn.Module, path: str | os.PathLike[str], *, weights: bool = False) -> None:
    """Write the graphs and plans of a compiled model to one file, for `fxtrt.load`.

    It is written beside `path` and moved there.

    Args:
        compiled: what `fxtrt.compile` returned, whose plans are in its `cache_dir`.
        weights: whether the file serves without the model. It then also has the weights, the host
            steps around a detector's core, the report, and the example of the compilation with the
            answer to it; the compiled model runs once for that. By default the file has only a
            digest of the weights.

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
    stored = [_checked(part) for part in (*captured.parts, *captured.others)]
    parts, contents = _graphs(stored, outcome.failures)
    alone = None
    if weights:
        alone, members = alone_of(compiled, outcome, [graph for _, graph, _ in stored])
        contents += members
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
        "alone": alone,
        "gate": None if outcome.gate is None else asdict(outcome.gate),
    }
    typed(parse(json.dumps(manifest).encode(), "the manifest"), Manifest, "the manifest")
    write_artifact(Path(path), manifest, chain(contents, plans_to_save(outcome, stored, plans)))


def _graphs(
    stored: Sequence[Stored], failed: Sequence[Failures]
) -> tuple[list[dict[str, Any]], list[tuple[str, bytes]]]:
    """Return the rows of the parts in the manifest, and their graphs as members of the file."""
    rows, members = list[dict[str, Any]](), list[tuple[str, bytes]]()
    for number, ((part, graph, _), failures) in enumerate(zip(stored, failed, strict=True)):
        forms, data = write_constants(graph.constants)
        members.append((f"graphs/{number}.json", graph.text))
        members.append((f"graphs/{number}.constants", data))
        row = {"path": part.path, "core": part.steps is not None, "constants": forms}
        left = [{name: asdict(why) for name, why in one.items()} for one in failures]
        rows.append({**row, "failures": left})
    return rows, members


def load(
    path: str | os.PathLike[str],
    model: torch.nn.Module | None = None,
    *,
    operators: Collection[str] = (),
    rebuild: bool = False,
    answers: _ANSWERS = "plain",
    **overrides: Unpack[Options],
) -> torch.nn.Module:
    """Return what `fxtrt.compile` returned before it was saved, made from `model`; or serve alone.

    Nothing is captured. `model` must be the same as the one that was compiled: its classes and
    their sources, what its modules hold, its weights and the versions of all packages are compared.
    Global variables and other modules of yours that its code reads are not compared. If the GPU or
    TensorRT is another one, or overrides change the engines, these are built anew.

    Without a `model`, a file that was saved with `weights=True` gives a module that needs no code
    of the model. A detector takes a list of images, and returns a dict of tensors for each; any
    other model is called as it was compiled. A call that the graphs do not take raises `CallError`.
    If the GPU, TensorRT or fxtrt is another one, the file is refused unless `rebuild` is set.

    The graphs in the file are checked before any is compiled: they may only call operators that
    compute. Plans cannot be checked like this, because they are code to TensorRT. Load only files
    that you trust.

    Args:
        path: the path of a file that `fxtrt.save` wrote.
        operators: names, such as "package.name.default", of your own operators without a converter
            that the file may call.
        rebuild: without a `model`, build the engines again from the graphs where those in the file
            cannot run.
        answers: without a `model`, how a detector of Detectron2 answers: "plain" dicts by
            torchvision's names, or "detectron2", its `Instances`, for which it must be installed.
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
    if answers not in get_args(_ANSWERS):
        raise SettingsError(f"answers is {answers!r}, and may be 'plain' or 'detectron2'")
    if model is not None:
        require_inference(model, ())
    with ArtifactFile(Path(path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {path}")
        settings = settings_of(manifest, overrides)
        target = Target.of(settings)
        if model is None:
            captured = _captured_alone(path, file, manifest, operators, answers)
        else:
            twin = twin_of(model)
            require_same(path, manifest, twin)
            captured = captured_of(
                file, manifest, twin, operators, lambda graph, specs: steps_of_model(path, twin)
            )
        stores: PlanStores = PlanCache.of
        failures: list[Failures] = []
        gate: GateRow | None = None
        if not any(name in PORTABLE and name not in OF_SERVING for name in overrides):
            must_fit = model is None and not rebuild
            if _has_plans_for(path, manifest, target.backend, must_fit=must_fit):
                stores = plans_of(file, manifest["plans"], strict=must_fit)
                failures = [part["failures"] for part in manifest["parts"]]
                gate = manifest["gate"]
        scales = _scales(path, manifest)
        loaded = _compiled(captured, target, stores, failures, scales, overridden=bool(overrides))
        note_gate(loaded, gate)
    if stores is not PlanCache.of:
        _warn_of_missing_plans(path, loaded, target.backend)
    return loaded


def _captured_alone(
    path: str | os.PathLike[str],
    file: ArtifactFile,
    manifest: Manifest,
    operators: Collection[str],
    answers: str,
) -> Captured:
    """Return the captured model of a file that serves without its model."""
    model = loaded_model(file, manifest)
    if any(part["path"] for part in manifest["parts"]) or not manifest["parts"]:
        raise ArtifactError(f"{path} has graphs of parts, which only their model can call")
    saved = manifest["model"]["versions"]
    if changed := differing_versions(saved, versions_now(_VERSIONS)):
        log.warning("%s: %s; fxtrt verify compares the answers", path, ", ".join(changed))

    def steps(graph: GraphModule, specs: Sequence[TensorSpec]) -> CallSteps:
        return loaded_steps(manifest, graph, specs, answers)

    if answers != "plain" and not any(part["core"] for part in manifest["parts"]):
        raise SettingsError(f"answers={answers!r} is for detectors of Detectron2 with a core")
    return captured_of(file, manifest, model, operators, steps)


def _has_plans_for(
    path: str | os.PathLike[str], manifest: Manifest, backend: EngineBackend, *, must_fit: bool
) -> bool:
    """Return whether the plans of a file can run here, or log why not.

    Raises:
        ArtifactError: they cannot, and `must_fit` says that no others may be built.
    """
    here = _engine(backend)
    if here != manifest["engine"]:
        reason = f"has engines for {manifest['engine']}, and here is {here}"
    elif manifest["model"]["versions"].get(CODE) != versions_now([CODE])[CODE]:
        reason = "has engines of another version of fxtrt"
    else:
        return True
    if backend.plans:
        if must_fit:
            raise ArtifactError(f"{path} {reason}: {REBUILD}")
        log.warning("%s %s: building others", path, reason)
    return False


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
    except (OSError, ArtifactError):
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


def _checked(part: ModelPart) -> Stored:
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
