"""Find the engines that answer otherwise than the simulation of their clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..builder.casts import COMPUTE_DTYPES, keeps_float32
from ..engines.target import Target
from ..graph.ambient import explicit
from ..graph.formats import FORM
from ..passes.insert_casts import narrow_among
from ..runtime.engine_module import EngineModule
from ..runtime.stitched_call import Observer, StitchedCall
from ..settings import Settings
from .node_precision import Narrow
from .ranking import error_of
from .simulated_run import SimulatedRun

__all__ = ["stitched_observed"]

_MOST_TIMES = 2.0
_ROUNDING = 2e-3
"""An engine differs whose error is `_MOST_TIMES` that of its simulation, and `_ROUNDING` more."""


@contextmanager
def stitched_observed(
    calls: Sequence[StitchedCall], target: Target
) -> Iterator[set[tuple[int, str]]]:
    """Compare engines with simulations of their clusters while the block calls the model.

    Yields a set, which gets the number of the call and the name of each cluster that differs.

    Args:
        target: what the engines were built for.
    """
    found: set[tuple[int, str]] = set()
    with ExitStack() as stack:
        for number, call in enumerate(calls):
            stack.enter_context(call.observe(_observer(number, call, target.settings, found)))
        yield found


def _observer(
    number: int, call: StitchedCall, settings: Settings, found: set[tuple[int, str]]
) -> Observer:
    def observe(node: Node, args: Sequence[Any], run: Callable[[], Any]) -> Any:
        result = run()
        module = call.graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, EngineModule) and _differs(module, args, result, settings):
            found.add((number, module.name))
        return result

    return observe


def _differs(module: EngineModule, args: Sequence[Any], result: Any, settings: Settings) -> bool:
    with torch.no_grad(), explicit():
        wide = module.fallback(*args)
        narrow = SimulatedRun(module.fallback, _narrow(module.fallback, settings)).run(*args)
    return error_of(result, wide) > _MOST_TIMES * error_of(narrow, wide) + _ROUNDING


def _narrow(cluster: GraphModule, settings: Settings) -> Narrow:
    """Return what of a cluster, extracted and without casts, is computed in the narrow type."""
    dtype = COMPUTE_DTYPES.get(settings.precision)
    if dtype is None or dtype == torch.float32:
        return Narrow({}, {})
    calls = [node for node in cluster.graph.nodes if node.op == "call_function"]
    entering = {
        user
        for node in cluster.graph.find_nodes(op="placeholder")
        if FORM in node.meta and node.meta["val"].dtype == dtype
        for user in node.users
    }
    narrow = narrow_among(calls, calls, keeps_float32(cluster, settings, dtype), entering)
    return Narrow(dict.fromkeys(narrow, dtype), {})
