"""Finds the first cluster of a model whose engine is wrong, and the node in it that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..capture.arguments import call_of
from ..capture.model_parts import capture_model
from ..capture.twin import require_module
from ..detection.recipes import with_recipe_components
from ..engines.target import Target
from ..graph.nodes import is_size
from ..graph.provenance import module_path, source_line
from ..lowering.cluster_inputs import recorded_values
from ..lowering.delta_debugging import first_wrong
from ..lowering.lower import normalize_model
from ..lowering.settle import build_cluster, settle
from ..numerics.compare import Difference, compare
from ..partition.extract import extract
from ..partition.partition import Cluster
from ..quantization.quantize import quantize
from ..runtime.engine_module import EngineModule
from ..settings import Settings

__all__ = ["Culprit", "bisect", "first_difference"]


@dataclass(frozen=True, slots=True)
class Culprit:
    """The first cluster whose engine gives other numbers than PyTorch, given the same inputs.

    node:        the first node of the cluster whose engine is wrong: an engine of the nodes before
                 it is right.
    differences: all outputs of the cluster, compared with PyTorch's.
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
    """Find the first place where `fxtrt.compile(model, inputs)` would differ from `model`, if any.

    Raises:
        FxtrtError: as `fxtrt.compile` does; for int8, it needs the scales of an earlier call.
    """
    require_module(model)
    settings = with_recipe_components(settings, model)
    target = Target.of(settings)
    captured = capture_model(model, call_of(model, inputs), None, settings)
    normalize_model(captured, settings)
    for part in captured.parts:
        # PyTorch rounds to int8 too, so that only what the engine does itself differs.
        quantize(part.graph, target, None)
        culprit = first_difference(part.graph, part.values(), target)
        if culprit is not None:
            return culprit
    return None


def first_difference(gm: GraphModule, inputs: Sequence[Any], target: Target) -> Culprit | None:
    """Find the first cluster of `gm` whose engine gives other numbers than PyTorch, if one does.

    Every cluster gets the inputs that it has if all clusters before it run in PyTorch, so that no
    difference spreads. In the first one that differs, prefixes of its nodes are built, and a binary
    search finds the shortest that is wrong.

    Args:
        gm: a graph that was normalized.
        inputs: one value for each placeholder.
    """
    built = settle(gm, target, inputs).built
    taken = {node for one in built for node in one.extracted.inputs}
    values = recorded_values(gm, inputs, taken)
    for one in built:
        arguments = one.extracted.arguments(values)
        differences = _compare(one.module, arguments)
        if not all(difference.agrees for difference in differences):
            own = target.with_settings(one.extracted.cluster.settings)
            is_wrong = _prefix_test(one.module.fallback, arguments, own)
            graph = one.module.fallback.graph
            calls = [n for n in graph.nodes if n.op == "call_function" and not is_size(n)]
            node = first_wrong(calls, is_wrong)
            return Culprit(one.extracted.cluster.name, node, differences)
    return None


def _prefix_test(
    cluster: GraphModule, arguments: Sequence[Any], target: Target
) -> Callable[[Sequence[Node]], bool]:
    def is_wrong(nodes: Sequence[Node]) -> bool:
        extracted = extract(cluster, Cluster("prefix", tuple(nodes), target.settings))
        module, _ = build_cluster(extracted, target.backend)
        values = recorded_values(cluster, arguments, extracted.inputs)
        differences = _compare(module, [values[node] for node in extracted.inputs])
        return not all(difference.agrees for difference in differences)

    return is_wrong


def _compare(module: EngineModule, arguments: Sequence[Any]) -> tuple[Difference, ...]:
    with torch.no_grad():
        return compare(module(*arguments), module.fallback(*arguments))
