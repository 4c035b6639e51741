"""Turns a compiled model into what a file needs to serve without the model, and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.fx import GraphModule

from ..ahead_of_time import report
from ..capture.model_part import ModelPart
from ..capture.untouched import untouched
from ..detection.host_steps import CallSteps
from ..errors import ArtifactError
from ..graph.ambient import Ambient
from ..graph.specs import Call, TensorSpec
from ..graph.weights import named_tensors
from ..lowering.outcome import Outcome
from ..runtime.loaded_model import LoadedModel
from ..serialization.graph_data import StoredGraph
from ..serialization.tree_data import is_plain_tree
from .archive import ArtifactFile
from .golden import read_golden, write_golden
from .manifest import Alone, Manifest, Steps
from .weights import read_weights, write_weights

__all__ = [
    "alone_of",
    "differing_versions",
    "golden_of",
    "loaded_model",
    "loaded_steps",
]

log = logging.getLogger(__name__)

WEIGHTS, GOLDEN, REPORT = "weights.safetensors", "golden.constants", "report.json"
"""The names of the members."""
_LARGE = 64 << 20
"""The bytes of golden inputs and outputs from which on `save` tells how many there are."""


def alone_of(
    compiled: torch.nn.Module, outcome: Outcome, stored: Sequence[StoredGraph]
) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Return what the manifest says of a file that serves alone, and its members.

    Args:
        stored: the graphs of all parts.

    Raises:
        ArtifactError: the model cannot be served without its code; the message says why.
    """
    parts = [*outcome.captured.parts, *outcome.captured.others]
    if reason := _why_not(parts, stored):
        raise ArtifactError(f"the model cannot be saved with weights=True: {reason}")
    steps = _steps_of(parts[0])
    tensors = dict(named_tensors(compiled))
    used = sorted({name for graph in stored for name in _weights_of(graph)})
    rows, weights = write_weights({name: tensors[name] for name in used})
    golden, values = write_golden(*_run_again(compiled, outcome, steps))
    if len(values) > _LARGE:
        log.warning("the example's inputs and outputs take %.0f MB of the file", len(values) / 1e6)
    alone = {
        "weights": rows,
        "steps": None if steps is None else asdict(steps),
        "golden": golden,
    }
    reported = report(compiled).to_json().encode()
    return alone, [(WEIGHTS, weights), (GOLDEN, values), (REPORT, reported)]


def _why_not(parts: Sequence[ModelPart], stored: Sequence[StoredGraph]) -> str | None:
    if any(part.path for part in parts) or not parts:
        return "it was captured in parts, and its own code calls them"
    for part, graph in zip(parts, stored, strict=True):
        if part.steps is not None:
            continue
        if part.recipe is not None and part.recipe.arguments is not None:
            return f"{type(part.module).__name__} has no core, and its recipe reads its arguments"
        data = json.loads(graph.text)
        if not (is_plain_tree(data["takes"]) and is_plain_tree(data["gives"])):
            return "its arguments or results have types of its own packages"
    return None


def _steps_of(part: ModelPart) -> Steps:
    if part.steps is None:
        return None
    as_data = getattr(part.steps, "as_data", None)
    steps = "the host steps of its recipe are code only" if as_data is None else as_data()
    if isinstance(steps, str):
        raise ArtifactError(f"the model cannot be saved with weights=True: {steps}")
    steps.require_sound()
    return steps  # type: ignore[no-any-return]  # the recipe's


def _weights_of(graph: StoredGraph) -> list[str]:
    return [
        name for kind, name in json.loads(graph.text)["attributes"].values() if kind == "weight"
    ]


def _run_again(compiled: torch.nn.Module, outcome: Outcome, steps: Steps) -> tuple[Call, Any]:
    """Return the example call and the compiled model's answer, both as a loaded model has them."""
    if outcome.example is None:
        raise ArtifactError("the example call of the model is not known: compile it again")
    call = outcome.example.call()
    with torch.no_grad(), untouched(compiled, call.args, call.kwargs):
        answer = compiled(*call.args, **call.kwargs)
    if steps is None:
        return call, answer
    return Call(steps.plain_inputs(call.args), {}), steps.plain_answers(answer)


def loaded_model(file: ArtifactFile, manifest: Manifest) -> LoadedModel:
    """Return a model that holds the weights in a file.

    Raises:
        ArtifactError: the file has none, they are damaged, or torch's modes are others.
    """
    alone = _alone(manifest)
    for name, before in manifest["model"]["process"].items():
        if (now := Ambient().words().get(name)) != before:
            raise ArtifactError(f"the model was compiled with torch's {name} {before}, not {now}")
    weights = read_weights(alone["weights"], file.read(WEIGHTS))
    try:
        return LoadedModel(weights)
    except (KeyError, AttributeError, TypeError) as error:
        raise ArtifactError(f"the names of the weights are wrong: {error}") from error


def loaded_steps(
    manifest: Manifest, graph: GraphModule, specs: Sequence[TensorSpec], answers: str
) -> CallSteps:
    """Return the steps around a core, after checking that they fit it.

    Args:
        answers: as in `fxtrt.load`.

    Raises:
        ArtifactError: the steps in the file have absurd values, or are of another core.
    """
    steps = _alone(manifest)["steps"]
    if steps is None:
        raise ArtifactError("the file has a core, and no steps around it")
    steps.require_sound()
    gives: Any = graph.graph._codegen.pytree_info.out_spec  # type: ignore[attr-defined]  # restored
    found = (len(specs), gives.num_leaves)
    if gives.type is not tuple or gives.num_children != gives.num_leaves or found != steps.counts:
        raise ArtifactError(f"the core has {found} inputs and outputs, its steps {steps.counts}")
    device = specs[0].device or torch.device("cpu")
    return steps.loaded(device, answers)


def golden_of(file: ArtifactFile, manifest: Manifest) -> tuple[Call, Any]:
    """Return the example call of a file, and its answer.

    Raises:
        ArtifactError: the file has none, or they are damaged.
    """
    return read_golden(_alone(manifest)["golden"], file.read(GOLDEN))


def _alone(manifest: Manifest) -> Alone:
    if manifest["alone"] is None:
        raise ArtifactError(
            "the file has no weights: give fxtrt.load the model, or save it with weights=True"
        )
    return manifest["alone"]


def differing_versions(saved: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return "package was 1, and is now 2" for each package of both that differs."""
    return [
        f"{name} was {version:.12}, and is now {found[name]:.12}"
        for name, version in saved.items()
        if found.get(name, version) != version
    ]
