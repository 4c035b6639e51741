"""Keeps with a compiled model what became of its graphs, for reports, files and servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..capture.kept_example import KeptExample
from ..capture.model_parts import Captured
from ..engines.target import Target
from ..graph.weight_states import Snapshot
from ..quantization.scale_table import ScaleTable
from ..reporting import GateRow
from ..reporting.node_times import Reported
from ..runtime.guarded_forward import GuardedForward
from .divide import Failures

__all__ = ["Outcome", "engine_weights", "keep_outcome", "note_gate", "outcome_of", "weights_hold"]

_OUTCOME = "_fxtrt_outcome"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the lowered parts of a compiled model, and what they were lowered with.

    reported: the parts that the report is about.
    target:   what the model was compiled for.
    snapshot: the state of the weights that the engines hold.
    failures: what left failing clusters, for each graph of `captured`.
    scales:   what int8 computes with.
    example:  the call that the model was compiled with; None for a loaded model.
    gate:     how the model passed its accuracy gate, if it has one.
    """

    reported: Sequence[Reported]
    captured: Captured
    target: Target
    snapshot: Snapshot
    failures: Sequence[Failures]
    scales: ScaleTable | None = None
    example: KeptExample | None = None
    gate: GateRow | None = None


def keep_outcome(model: torch.nn.Module, outcome: Outcome) -> None:
    """Keep what became of a compiled model with it, but not as one of its submodules."""
    object.__setattr__(model, _OUTCOME, outcome)


def note_gate(compiled: torch.nn.Module, row: GateRow | None) -> None:
    """Let the report of a compiled model say how it passed its accuracy gate."""
    keep_outcome(compiled, replace(compiled.__dict__[_OUTCOME], gate=row))


def outcome_of(model: torch.nn.Module) -> Outcome | None:
    """Return what became of a model that `fxtrt.compile` returned; None for any other model."""
    return model.__dict__.get(_OUTCOME)


def weights_hold(model: torch.nn.Module) -> bool:
    """Return whether a compiled model still has the weights that it was compiled with."""
    outcome = outcome_of(model)
    return outcome is not None and outcome.snapshot.holds(engine_weights(model))


def engine_weights(model: torch.nn.Module) -> list[torch.Tensor]:
    """Return the weights of a compiled model that are in its engines."""
    forwards = (module.__dict__.get("forward") for module in model.modules())
    guards = [forward for forward in forwards if isinstance(forward, GuardedForward)]
    live = {key for guard in guards for key in guard.live}
    return [t for t in (*model.parameters(), *model.buffers()) if id(t) not in live]
