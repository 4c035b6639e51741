"""Makes the rows about serving: slots, CUDA graphs, and calls that ran in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..runtime.guarded_forward import GuardedForward
from ..runtime.stitched_call import StitchedCall
from .coverage import Coverage
from .node_times import Reported
from .values import Fallback, GuardRow, RuntimeRow

__all__ = ["guard_rows", "runtime_rows"]

_MOST_NAMED = 20


def guard_rows(model: torch.nn.Module) -> tuple[GuardRow, ...]:
    """Make a row for each module of a compiled model that has compiled calls."""
    forwards = [(path, child.__dict__.get("forward")) for path, child in model.named_modules()]
    return tuple(_guard(path, f) for path, f in forwards if isinstance(f, GuardedForward))


def runtime_rows(parts: Sequence[Reported]) -> tuple[RuntimeRow, ...]:
    """Make a row for each set of slots, with clusters numbered as in `Coverage.total`."""
    of_slots: dict[int, list[tuple[StitchedCall, Coverage, int]]] = {}
    offset = 0
    for part in parts:
        if part.call is not None and part.coverage.clusters:
            of_slots.setdefault(id(part.call.slots), []).append((part.call, part.coverage, offset))
        offset += len(part.coverage.clusters)
    return tuple(map(_row, of_slots.values()))


def _guard(path: str, guard: GuardedForward) -> GuardRow:
    compiled, reasons = guard.fallbacks.compiled, guard.fallbacks.most_frequent()
    calls = compiled + sum(count for _, count in reasons)
    return GuardRow(path, calls, compiled, tuple(reasons))


def _row(calls: Sequence[tuple[StitchedCall, Coverage, int]]) -> RuntimeRow:
    slots = calls[0][0].slots
    built = [row.build for _, coverage, _ in calls for row in coverage.clusters]
    unrecorded = [reason for call, _, _ in calls for reason in call.reasons]
    return RuntimeRow(
        slots=slots.most,
        made=slots.made,
        scratch_bytes=slots.scratch_bytes,
        taken_bytes=slots.taken_bytes,
        plan_bytes=sum(build.plan_bytes or 0 for build in built if build is not None),
        cuda_graphs=any(call.cuda_graphs for call, _, _ in calls),
        recorded=sum(runner.recorded for call, _, _ in calls for runner in call.recorders),
        graph_bytes=sum(runner.recorded_bytes for call, _, _ in calls for runner in call.recorders),
        unrecorded=tuple(unrecorded[:_MOST_NAMED]),
        fallbacks=tuple(fallback for call in calls for fallback in _fallbacks(*call)),
    )


def _fallbacks(call: StitchedCall, coverage: Coverage, offset: int) -> Iterator[Fallback]:
    numbers = {row.name: offset + index for index, row in enumerate(coverage.clusters)}
    for module in call.modules:
        for reason, count in module.fallbacks.most_frequent():
            yield Fallback(f"cluster_{numbers[module.name]}", reason, count)
