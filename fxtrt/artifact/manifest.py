"""Declares what the manifest of a saved model holds, and reads its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

from ..cache.plan_file import PlanHeader
from ..capture.model_parts import Missed
from ..capture.uncaptured import OutsideCall
from ..detection.detectron2.steps_data import StepsData as Detectron2Steps
from ..detection.torchvision.steps_data import StepsData as TorchvisionSteps
from ..errors import ArtifactError, SettingsError
from ..registry import Rejection
from ..reporting import GateRow
from ..serialization.constant_data import Form
from ..serialization.model_identity import Identity
from ..settings import Settings
from .golden import Golden
from .weights import Weight

__all__ = ["OF_SERVING", "PORTABLE", "Alone", "Manifest", "Steps", "settings_of"]

PORTABLE = (
    *("engine", "precision", "keep_fp32", "keep_fp16", "quantize", "int8_if_faster"),
    *("min_cluster_size", "whitelist", "blacklist"),
    *("components", "partition", "max_growth", "most_images", "on_build_failure"),
    *("optimization_level", "workspace_bytes", "tactic_sources", "compute_capabilities"),
    *("slots", "slot_timeout", "cuda_graphs", "check_weights", "self_check"),
)
"""The fields of `Settings` that a file has. All others, such as `cache_dir`, belong to the machine
and to the user who loads the file."""
_OF_THE_CAPTURE = ("most_images", "max_growth", "fuel")
OF_SERVING = ("slots", "slot_timeout", "cuda_graphs", "check_weights", "self_check")
"""The portable fields that change no engine."""


class _Part(TypedDict):
    """Describes a graph in the manifest; its nodes and constants are members of the file.

    failures: the names of the nodes that left clusters which did not build or were wrong, and why,
              as in `Outcome`.
    """

    path: str
    core: bool
    constants: list[Form]
    failures: list[dict[str, Rejection]]


Steps = None | TorchvisionSteps | Detectron2Steps
"""The host steps around a core as data; None for a graph that is called as it is."""


class Alone(TypedDict):
    """The part of a manifest that lets a file serve without its model.

    weights: those that the graphs read, by name; the tensors are a member of the file.
    golden:  the example call of the compilation, and the compiled model's answer.
    """

    weights: dict[str, Weight]
    steps: Steps
    golden: Golden


class Manifest(TypedDict):
    """The manifest of a file.

    model:   the identity of the model, from `identity_of`.
    weights: the digest of the weights.
    whole:   how many of the parts are `Captured.parts`; the rest are its `others`.
    plans:   the headers of the plans in the file, by name.
    scales:  the JSON of the table that int8 computes with, or "".
    alone:   None in a file that needs its model.
    gate:    how the model passed its accuracy gate, if it has one.
    """

    model: Identity
    weights: str
    engine: dict[str, str]
    settings: dict[str, Any]
    parts: list[_Part]
    whole: int
    missed: list[Missed]
    outside: list[OutsideCall]
    plans: dict[str, PlanHeader]
    scales: str
    alone: Alone | None
    gate: GateRow | None


def settings_of(manifest: Manifest, overrides: Mapping[str, Any]) -> Settings:
    """Combine the settings in the file, those of this machine, and overrides.

    Raises:
        ArtifactError: a setting in the file is wrong.
        SettingsError: an override is wrong, or needs the model to be captured again.
    """
    own = Settings.from_env()
    if unknown := manifest["settings"].keys() - set(PORTABLE):
        raise ArtifactError(f"no file may have the setting {min(unknown)!r:.80}")
    try:
        settings = replace(own, **manifest["settings"])
    except (SettingsError, TypeError, ValueError, OverflowError) as error:
        raise ArtifactError(f"a setting is wrong: {error}") from error
    changed = Settings.of(settings, overrides)
    for name in _OF_THE_CAPTURE:
        before, now = getattr(settings, name), getattr(changed, name)
        if now != before:
            raise SettingsError(
                f"the model was captured with {name}={before!r}: for {now!r} compile it again"
            )
    return changed
