"""Compile a captured model so that it passes a gate: simulate, demote, build, and verify."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import Node

from ..capture.model_parts import Captured
from ..engines.target import Target
from ..errors import AccuracyError
from ..graph.flops import flops
from ..graph.provenance import module_path, source_line
from ..lowering.divide import Failures
from ..lowering.outcome import Outcome
from ..quantization.scale_table import ScaleTable
from ..reporting import DemotionRow, GateRow
from ..runtime.stitched_call import StitchedCall, engine_modules
from .demotion import Demotion, Demotions, find_demotions
from .deviation import stitched_observed
from .gate import Judge
from .simulation import MILDEST_FIRST, Forwards, Simulation, fresh, settings_with

__all__ = ["Built", "compile_within"]

log = logging.getLogger(__name__)

_MOST_BUILDS = 2


@dataclass(frozen=True, slots=True)
class Built:
    """A compiled model.

    outcome:   what the report and saving read of it. All builds share one model, which has the
               last one's.
    calls:     the calls of its graphs.
    failures:  what left failing clusters in each graph.
    engine_ms: the time of one call of each cluster in its engine, where it was measured.
    """

    model: torch.nn.Module
    outcome: Outcome
    calls: Sequence[StitchedCall]
    failures: Sequence[Failures]
    engine_ms: Sequence[float | None]

    @property
    def runs_here(self) -> bool:
        """Return whether this machine can run all engines."""
        modules = engine_modules([call.graph for call in self.calls])
        return all(module.engine is not None for module in modules)


Build = Callable[[Captured, Target, Sequence[Failures]], Built]
"""Builds the engines of a captured model, whose graphs it changes."""


def compile_within(
    judge: Judge,
    captured: Captured,
    target: Target,
    build: Build,
    scales: ScaleTable | None = None,
) -> tuple[Built, GateRow]:
    """Return a compiled model that passes the gate, and what was demoted for that.

    The demotions come from a simulation, which builds nothing. If the engines lose more than they
    should, what they lose beyond the simulation is taken off the bound, a cluster that differs from
    its simulation is left to PyTorch, and all is built once more.

    Raises:
        AccuracyError: no demotion helps, or the engines lose too much twice.
        FxtrtError: as `build` raises.
    """
    return _Gated(judge, captured, target, build, scales).run()


class _Gated:
    def __init__(
        self,
        judge: Judge,
        captured: Captured,
        target: Target,
        build: Build,
        scales: ScaleTable | None,
    ) -> None:
        self._judge, self._captured, self._build, self._scales = judge, captured, build, scales
        self._original = self._target = target
        self._modules = [part.module for part in (*captured.parts, *captured.others)]
        self._left_out: list[DemotionRow] = []
        self._failures: Sequence[Failures] = ()
        self._allowed = judge.gate.most_loss

    def run(self) -> tuple[Built, GateRow]:
        lost: list[str] = []
        for builds in range(1, _MOST_BUILDS + 1):
            simulation = Simulation(
                fresh(self._captured), self._target, self._scales, self._failures
            )
            found = find_demotions(self._judge, simulation, self._allowed)
            _tell(found)
            demoted = {setting: found.entries(setting) for setting in MILDEST_FIRST}
            target = self._target.with_settings(settings_with(self._target.settings, demoted))
            with Forwards(self._modules) as forwards:
                built = self._build(fresh(self._captured), target, self._failures)
                loss = self._verified(built)
                if loss is None or loss <= self._judge.gate.most_loss:
                    forwards.keep()
                    row = self._row(simulation, found, loss, builds)
                    break
                lost.append(f"{loss:g} (simulated: {found.after:g})")
                log.warning("the engines lose %s, %g is allowed", lost[-1], self._allowed)
                self._prepare_again(simulation, built, target, loss - found.after)
            if builds == _MOST_BUILDS or self._allowed < 0:
                raise AccuracyError(self._why(lost))
        return built, replace(row, costs_ms=self._costs(row, built))

    def _verified(self, built: Built) -> float | None:
        """Return the loss of the engines; None where they cannot run on this machine."""
        if not built.runs_here:
            log.warning("the gate is simulated only: this machine cannot run the engines")
            return None
        return self._judge.loss(self._judge.predictions(built.model))

    def _prepare_again(
        self, simulation: Simulation, built: Built, target: Target, beyond: float
    ) -> None:
        """Leave clusters that differ from their simulation to PyTorch, or else lower the bound.

        Args:
            beyond: what the engines lose and the simulation does not.
        """
        self._failures = built.failures
        with stitched_observed(built.calls, target) as found:
            self._judge.predictions(built.model, [0])
        for number, name in sorted(found):
            divided = simulation.graphs[number].divided
            log.warning("%s differs from its simulation: PyTorch runs it", name)
            self._left_out += [
                _row_of_wrong(node, entry)
                for entry, node in divided.named.items()
                if any(c.name == name and node in c.nodes for c in divided.clusters)
            ]
        if self._left_out:
            settings = self._target.settings
            blacklist = (*settings.blacklist, *(row.entry for row in self._left_out))
            self._target = self._target.with_settings(replace(settings, blacklist=blacklist))
        else:
            self._allowed -= beyond

    def _row(
        self, simulation: Simulation, found: Demotions, loss: float | None, builds: int
    ) -> GateRow:
        gate = self._judge.gate
        int8 = {unit.entry for unit in simulation.units["keep_fp16"]}
        half = "bf16" if self._target.settings.precision == "bf16" else "fp16"
        rows = tuple(
            _row_of(one, "int8" if one.unit.entry in int8 else half) for one in found.demotions
        )
        return GateRow(
            metric=gate.metric_name,
            images=self._judge.images,
            most_loss=gate.most_loss,
            baseline=self._judge.baseline,
            loss_before=found.before if math.isfinite(found.before) else None,
            loss_simulated=found.after,
            loss=loss,
            builds=builds,
            runs=found.runs,
            minimal=found.ended,
            demotions=(*rows, *self._left_out),
        )

    def _costs(self, row: GateRow, built: Built) -> float | None:
        """Return what the demotions cost, if engines are timed, which takes one more build."""
        if not row.demotions or self._target.settings.partition != "measured":
            return None
        with Forwards(self._modules):
            fast = self._build(fresh(self._captured), self._original, self._failures)
        pairs = [built.engine_ms, fast.engine_ms]
        if len(set(map(len, pairs))) > 1 or any(None in times for times in pairs):
            return None  # Other clusters lost to PyTorch, so the sums are not of the same nodes.
        return sum(filter(None, built.engine_ms)) - sum(filter(None, fast.engine_ms))

    def _why(self, lost: Sequence[str]) -> str:
        gate = self._judge.gate
        return (
            f"the engines lose {', then '.join(lost)} of {gate.metric_name}, and {gate.most_loss:g}"
            f" is allowed: find the node that answers wrongly with "
            f"`fxtrt bisect`, or give a larger most_loss"
        )


def _tell(found: Demotions) -> None:
    count = len(found.demotions)
    log.info("simulated loss %g, and %g with %d demotions", found.before, found.after, count)


def _row_of(one: Demotion, before: str) -> DemotionRow:
    node = one.unit.node
    return DemotionRow(
        node=node.name,
        target=str(node.target),
        module=module_path(node),
        source=source_line(node) or "",
        before=before,
        after=one.setting.removeprefix("keep_"),
        setting=one.setting,
        entry=one.unit.entry,
        flops=flops(node),
        error=one.error,
        wins=one.wins,
    )


def _row_of_wrong(node: Node, entry: str) -> DemotionRow:
    return DemotionRow(
        node=node.name,
        target=str(node.target),
        module=module_path(node),
        source=source_line(node) or "",
        before="engine",
        after="PyTorch",
        setting="blacklist",
        entry=entry,
        flops=flops(node),
        error=None,
        wins=None,
    )
