"""Saves a compiled model without its weights, and loads it around a model without capturing it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from .ahead_of_time import assemble, outcome_of, report, weight_states
from .artifact_file import ArtifactFile, write_artifact
from .backend import bound
from .cache import PlanCache
from .capture import require_inference
from .convert import tensor_specs
from .engine_key import EngineKey
from .engines.base import EngineBackend
from .engines.select import select
from .errors import ArtifactError, SettingsError
from .model_identity import difference, identity_of, weights_digest
from .outside import OutsideCall
from .parts import Captured, Part, prepare, twin_of
from .pass_manager import run_passes
from .report import RejectionRow
from .settings import Settings
from .settle import plan
from .stitch import cut
from .stitched_call import engine_modules
from .stored_graph import StoredGraph, restore, store

__all__ = ["load", "save"]

log = logging.getLogger(__name__)

_OF_THE_MACHINE = ("cache_dir", "cache_limit_bytes", "cache_trust")
_OF_THE_CAPTURE = ("other_sizes", "most_images", "max_growth", "fuel")
_OF_SERVING = (*_OF_THE_MACHINE, "slots", "slot_timeout", "cuda_graphs")
"""Fields of `Settings` that change no engine."""


def save(compiled: torch.nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the graphs and plans of a compiled model to one file, for `fxtrt.load`.

    The weights are not in it, only a digest of them. The file is written beside `path` and moved
    there.

    Args:
        compiled: what `fxtrt.compile` returned, whose plans are in its `cache_dir`.

    Raises:
        ArtifactError: it cannot be saved; says why, and what would help.
        OSError: the file cannot be written.
    """
    outcome = outcome_of(compiled)
    if outcome is None:
        raise ArtifactError("fxtrt.save takes what fxtrt.compile returned")
    captured, settings = outcome.captured, outcome.settings
    if settings.fuel is not None:
        raise ArtifactError("fuel is for finding faults: compile without it to save the model")
    if weight_states(compiled) != list(outcome.states):
        raise ArtifactError("a weight was changed after compiling: compile again, then save")
    parts, contents, cached = [], dict[str, bytes](), dict[str, Path]()
    for number, part in enumerate([*captured.parts, *captured.others]):
        stored, graph = _checked(part)
        contents[f"graphs/{number}.json"] = stored.text.encode()
        contents[f"graphs/{number}.constants"] = b"".join(map(_bytes, stored.constants))
        parts.append({"path": part.path, "constants": list(map(_form, stored.constants))})
        if outcome.backend.plans:
            cached |= _cache_files(part, graph, outcome.backend, settings)
    for name in captured.identity["unseen"]:
        log.info("fxtrt.load will not see whether the content of %s is the same", name)
    manifest = {
        "model": captured.identity,
        "weights": weights_digest(compiled),
        "engine": _engine(outcome.backend),
        "settings": _plain_settings(settings),
        "parts": parts,
        "whole": len(captured.parts),
        "missed": list(map(asdict, captured.missed)),
        "outside": list(map(asdict, captured.outside)),
    }
    write_artifact(Path(path), manifest, contents, cached)


def load(path: str | os.PathLike[str], model: torch.nn.Module, **overrides: Any) -> torch.nn.Module:
    """What `fxtrt.compile` returned before it was saved, made of `model`; nothing is captured.

    `model` must be the same as the one that was compiled: its classes and their sources, what its
    modules hold, its weights, the versions of all packages are compared. What its code reads from
    elsewhere (global variables, other modules of yours) is not seen. Where the GPU or TensorRT is
    another one, or overrides change the engines, they are built, as by `fxtrt.compile`.

    Args:
        path: of a file of `fxtrt.save`. Plans are code to TensorRT: load files that you trust.
        overrides: fields of `Settings`, in place of those that it was compiled with.

    Raises:
        ArtifactError: the file is damaged, or of another model or version; says what differs.
        SettingsError: an override that only compiling again can follow.
        CaptureError: the model is in training mode.
        EngineUnavailable: there is no such engine here.
        OSError: the file cannot be read.
    """
    require_inference(model, ())
    with ArtifactFile(Path(path)) as file:
        manifest = file.manifest
        settings = _settings(manifest, overrides)
        backend = select(settings.engine)
        twin = twin_of(model)
        _require_same(path, manifest, twin)
        captured = _captured(file, twin)
        prepare(captured, settings)
        if _engine(backend) != manifest["engine"]:
            log.warning("%s has engines for %s: building others", path, manifest["engine"])
            return assemble(captured, backend, settings)
        if any(name not in _OF_SERVING for name in overrides):
            return assemble(captured, backend, settings)
        with _unpacked(file) as directory:
            unpacked = replace(settings, cache_dir=directory, cache_limit_bytes=None)
            loaded = assemble(captured, backend, unpacked)
    for row in report(loaded).clusters:
        if backend.plans and row.build is not None and not row.build.cached:
            log.warning("%s had no good plan of %s: save the model again", path, row.name)
    return loaded


def _checked(part: Part) -> tuple[StoredGraph, GraphModule]:
    """The part's graph as it was captured, which is known to come back, and what comes back."""
    name = part.path or type(part.module).__name__
    if isinstance(part.stored, ArtifactError):
        raise ArtifactError(f"the graph of {name} cannot be saved: {part.stored}") from part.stored
    graph, call = restore(part.stored, part.module)
    again = store(graph, part.module, call)
    if again.text != part.stored.text:
        raise ArtifactError(f"the graph of {name} cannot be saved: it comes back another one")
    return part.stored, graph


def _cache_files(
    part: Part, graph: GraphModule, backend: EngineBackend, settings: Settings
) -> Iterator[tuple[str, Path]]:
    """The files of the plan cache that compiling the part again would ask for, by name.

    Args:
        graph: as the part's was captured; it is taken apart.

    Raises:
        ArtifactError: the plan of one of its engines is not there any more.
    """
    plans, timings = PlanCache.of(settings), PlanCache.of(settings, "timing")
    if plans is None or timings is None:
        raise ArtifactError("cache_dir=None keeps no plans: compile with a cache_dir to save them")
    run_passes(graph)
    bound(graph, settings)
    built = {module.name for module in engine_modules([part.graph])}
    for cluster in plan(graph, backend, settings).clusters:
        key = EngineKey.of(cut(graph, cluster).module, backend, cluster.settings)
        if plans.get(key) is not None:
            yield f"plans/{key.digest}.plan", plans.path(key)
        elif cluster.name in built:
            raise ArtifactError(
                f"the plan of {cluster.name} has left {settings.cache_dir}: compile again, with a "
                f"larger cache_limit_bytes"
            )
        if settings.partition == "measured" and timings.get(key) is not None:
            yield f"timings/{key.digest}.timing", timings.path(key)


def _engine(backend: EngineBackend) -> dict[str, str]:
    return {"name": backend.name, "runs on": backend.fingerprint}


def _plain_settings(settings: Settings) -> dict[str, Any]:
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if name not in _OF_THE_MACHINE}


def _settings(manifest: Mapping[str, Any], overrides: Mapping[str, Any]) -> Settings:
    """Those that the model was compiled with, those of this machine, and overrides."""
    settings = Settings.of(None, manifest["settings"])
    changed = Settings.of(settings, overrides)
    for name in _OF_THE_CAPTURE:
        before, now = getattr(settings, name), getattr(changed, name)
        if now != before:
            raise SettingsError(
                f"the model was captured with {name}={before!r}: for {now!r} compile it again"
            )
    return changed


def _require_same(
    path: str | os.PathLike[str], manifest: Mapping[str, Any], model: torch.nn.Module
) -> None:
    way_out = "compile the model again and save it"
    for part in manifest["parts"]:
        if part["path"] not in manifest["model"]["modules"]:
            raise ArtifactError(f"{path} has a part {part['path']!r} that its model does not have")
    if found := difference(manifest["model"], identity_of(model)):
        raise ArtifactError(f"{path} does not fit this model: {found}; {way_out}")
    if weights_digest(model) != manifest["weights"]:
        raise ArtifactError(f"{path} was saved with other weights than this model's: {way_out}")


def _captured(file: ArtifactFile, model: torch.nn.Module) -> Captured:
    manifest = file.manifest
    parts = [
        _part(file, number, described, model.get_submodule(described["path"]))
        for number, described in enumerate(manifest["parts"])
    ]
    return Captured(
        model,
        manifest["model"],
        parts[: manifest["whole"]],
        [RejectionRow(**row) for row in manifest["missed"]],
        [OutsideCall(**row) for row in manifest["outside"]],
        parts[manifest["whole"] :],
    )


def _part(
    file: ArtifactFile, number: int, described: Mapping[str, Any], module: torch.nn.Module
) -> Part:
    data = file.read(f"graphs/{number}.constants")
    constants = list(_read_constants(data, described["constants"]))
    text = file.read(f"graphs/{number}.json").decode()
    graph, call = restore(StoredGraph(text, constants), module)
    loaded = ArtifactError("it was loaded from a file: copy that one")
    return Part(described["path"], module, graph, call, tensor_specs(graph), loaded)


def _form(tensor: torch.Tensor) -> list[Any]:
    """What `_read_constants` needs besides the bytes."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return [dtype, list(tensor.shape), list(tensor.stride()), str(tensor.device)]


def _bytes(tensor: torch.Tensor) -> bytes:
    """The elements in order; whatever their strides, `_read_constants` gives them back."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _read_constants(data: bytes, forms: Sequence[Sequence[Any]]) -> Iterator[torch.Tensor]:
    start = 0
    for name, shape, strides, device in forms:
        dtype = getattr(torch, name)
        ordered = torch.empty(shape, dtype=dtype)
        part = data[start : start + ordered.nbytes]
        start += ordered.nbytes
        if part:
            ordered = torch.frombuffer(bytearray(part), dtype=torch.uint8).view(dtype).view(shape)
        tensor = torch.empty_strided(shape, strides, dtype=dtype)
        yield tensor.copy_(ordered).to(device)


@contextmanager
def _unpacked(file: ArtifactFile) -> Iterator[Path]:
    """A plan cache of the file's plans, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="fxtrt-") as folder:
        file.unpack_cache(Path(folder))
        yield Path(folder)
