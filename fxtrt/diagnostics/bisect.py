"""Names the first cluster of a model, and the node in it, whose engine answers wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..capture.arguments import call_of
from ..capture.model_parts import capture_model
from ..capture.twin import require_module
from ..detection.recipes import with_recipe_components
from ..engines.base import EngineBackend
from ..engines.select import select
from ..graph.nodes import is_size
from ..graph.provenance import module_path, source_line
from ..lowering.cluster_inputs import border_values
from ..lowering.delta_debugging import first_wrong
from ..lowering.settle import build_cluster, settle
from ..numerics.compare import Difference, compare
from ..partition.extract import cut
from ..partition.partition import Cluster
from ..runtime.engine_module import EngineModule
from ..settings import Settings

__all__ = ["Culprit", "bisect", "first_difference"]


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first cluster that answers differently from PyTorch, given the same inputs.

    node:        the first node with which it does; without it and what follows, it does not.
    differences: all outputs of the cluster against PyTorch's.
    """

    cluster: str
    node: Node
    differences: tuple[Difference, ...]

    def __str__(self) -> str:
        place = " in ".join(filter(None, (source_line(self.node), module_path(self.node))))
        return f"{self.cluster}: {self.node.name} = {self.node.target}" + (
            f" [{place}]" if place else ""
        )


def bisect(model: torch.nn.Module, inputs: tuple[Any, ...], settings: Settings) -> Culprit | None:
    """The first place where `fxtrt.compile(model, inputs)` would differ from `model`, if any.

    Raises:
        FxtrtError: as `fxtrt.compile` does.
    """
    require_module(model)
    backend = select(settings.engine)
    settings = with_recipe_components(replace(settings, other_sizes="pytorch"), model)
    for part in capture_model(model, call_of(model, inputs), None, settings).parts:
        culprit = first_difference(part.graph, part.values(), backend, settings)
        if culprit is not None:
            return culprit
    return None


def first_difference(
    gm: GraphModule, inputs: Sequence[Any], backend: EngineBackend, settings: Settings
) -> Culprit | None:
    """The first cluster of `gm` that answers differently from PyTorch, if one does.

    Every cluster gets what it would get if all before it ran in PyTorch, so no difference spreads.
    In the first one that differs, ever shorter prefixes are built, by halving.

    Args:
        gm: captured, after the passes.
        inputs: one value for each placeholder.
    """
    built = settle(gm, backend, settings, inputs).built
    borders = {node for one in built for node in one.cutting.inputs}
    values = border_values(gm, inputs, borders)
    for one in built:
        arguments = [values[node] for node in one.cutting.inputs]
        differences = _compare(one.module, arguments)
        if not all(difference.agrees for difference in differences):
            own = one.cutting.cluster.settings
            is_wrong = _prefix_test(one.module.fallback, arguments, backend, own)
            graph = one.module.fallback.graph
            calls = [n for n in graph.nodes if n.op == "call_function" and not is_size(n)]
            node = first_wrong(calls, is_wrong)
            return Culprit(one.cutting.cluster.name, node, differences)
    return None


def _prefix_test(
    cluster: GraphModule, arguments: Sequence[Any], backend: EngineBackend, settings: Settings
) -> Callable[[Sequence[Node]], bool]:
    def is_wrong(nodes: Sequence[Node]) -> bool:
        cutting = cut(cluster, Cluster("prefix", tuple(nodes), settings))
        module, _ = build_cluster(cutting, backend)
        values = border_values(cluster, arguments, cutting.inputs)
        differences = _compare(module, [values[node] for node in cutting.inputs])
        return not all(difference.agrees for difference in differences)

    return is_wrong


def _compare(module: EngineModule, arguments: Sequence[Any]) -> tuple[Difference, ...]:
    with torch.no_grad():
        return compare(module(*arguments), module.fallback(*arguments))
