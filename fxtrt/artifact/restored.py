"""Turns an open file of `fxtrt.save` into a captured model, after checking that it is the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence

import torch
from torch.fx import GraphModule

from ..capture.model_part import ModelPart
from ..capture.model_parts import Captured
from ..detection import recipe_of
from ..detection.host_steps import CallSteps
from ..errors import ArtifactError
from ..graph.specs import TensorSpec, tensor_specs
from ..serialization.constant_data import read_constants
from ..serialization.graph_data import StoredGraph, restore
from ..serialization.model_identity import difference, identity_of, weights_digest
from .archive import ArtifactFile
from .manifest import Manifest

__all__ = ["StepsOf", "captured_of", "require_same", "steps_of_model"]

StepsOf = Callable[[GraphModule, Sequence[TensorSpec]], CallSteps]
"""Returns the host steps around a core, of which it gets the graph and the specs of its inputs."""


def require_same(path: str | os.PathLike[str], manifest: Manifest, model: torch.nn.Module) -> None:
    way_out = "compile the model again and save it"
    for part in manifest["parts"]:
        if part["path"] not in manifest["model"]["modules"]:
            raise ArtifactError(f"{path} has a part {part['path']!r} that its model does not have")
    if found := difference(manifest["model"], identity_of(model)):
        raise ArtifactError(f"{path} does not fit this model: {found}; {way_out}")
    if weights_digest(model) != manifest["weights"]:
        raise ArtifactError(f"{path} was saved with other weights than this model's: {way_out}")


def steps_of_model(path: str | os.PathLike[str], model: torch.nn.Module) -> CallSteps:
    """Return the host steps around the core of a detector.

    Raises:
        ArtifactError: the model has no core.
    """
    recipe = recipe_of(model)
    steps = None if recipe is None or recipe.host_steps is None else recipe.host_steps(model)
    if steps is None or isinstance(steps, str):
        raise ArtifactError(
            f"{path} has the core of a detector, and {type(model).__name__} has none: "
            f"{steps or 'no recipe of its architecture names one'}"
        )
    return steps


def captured_of(
    file: ArtifactFile,
    manifest: Manifest,
    model: torch.nn.Module,
    operators: Collection[str],
    steps_of: StepsOf,
) -> Captured:
    parts = []
    for number, row in enumerate(manifest["parts"]):
        module = model.get_submodule(row["path"])
        constants = read_constants(row["constants"], file.read(f"graphs/{number}.constants"))
        stored = StoredGraph(file.read(f"graphs/{number}.json"), constants)
        graph, call = restore(stored, module, operators)
        loaded = ArtifactError("it was loaded from a file: copy that one")
        recipe, specs = recipe_of(module), tensor_specs(graph)
        steps = steps_of(graph, specs) if row["core"] else None
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
