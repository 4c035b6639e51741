"""Run passes over a graph in order; check, time and log each one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from .announce import announced
from .errors import PassError
from .graph.ambient import explicit
from .passes import DEFAULT_PASSES
from .passes.drop_dead_code import drop_dead_code

__all__ = ["Pass", "PassTiming", "run_passes"]

log = logging.getLogger(__name__)

Pass = Callable[[GraphModule], bool]


@dataclass(frozen=True, slots=True)
class PassTiming:
    """The outcome of one pass; `seconds` covers the pass and the checks after it."""

    name: str
    changed: bool
    seconds: float


def run_passes(gm: GraphModule, passes: Sequence[Pass] = DEFAULT_PASSES) -> tuple[PassTiming, ...]:
    """Run `passes` on `gm` in place, and recompile it if any of them changed it.

    After each pass that changes the graph, dead code is erased, and `lint()` and `meta["val"]` of
    every new node are checked.

    Raises:
        PassError: a pass raised, or left a graph that fails these checks.
    """
    with announced(f"simplifying a graph of {len(gm.graph.nodes)} nodes"):
        timings = _run_all(gm, passes)
    if any(timing.changed for timing in timings):
        gm.recompile()
    return tuple(timings)


def _run_all(gm: GraphModule, passes: Sequence[Pass]) -> list[PassTiming]:
    timings: list[PassTiming] = []
    for run in passes:
        start = time.perf_counter()
        try:
            with explicit():
                changed = _run(run, gm)
        except Exception as error:
            ran = ", ".join(timing.name for timing in timings) or "none"
            raise PassError(
                f"pass {_name(run)} failed: {type(error).__name__}: {error} "
                f"(passes before it: {ran}). Leave it out of `passes` to compile without it."
            ) from error
        timings.append(PassTiming(_name(run), changed, time.perf_counter() - start))
        log.debug("%s", timings[-1])
    return timings


def _run(run: Pass, gm: GraphModule) -> bool:
    # Sub-graphs, and calls that return nothing, had no value before the pass.
    without_value = {node for node in gm.graph.nodes if "val" not in node.meta}
    if not run(gm):
        return False
    drop_dead_code(gm)
    gm.graph.lint()
    for node in gm.graph.nodes:
        if "val" not in node.meta and node not in without_value:
            raise ValueError(f'{_describe(node)} has no meta["val"]')
    return True


def _name(run: Pass) -> str:
    return getattr(run, "__name__", None) or type(run).__name__


def _describe(node: Node) -> str:
    return f"{node.name} ({node.op} {node.target})"
