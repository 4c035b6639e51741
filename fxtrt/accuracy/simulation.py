"""Run a captured model in PyTorch as its engines would: each node in its precision, no builds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..capture.model_part import ModelPart
from ..capture.model_parts import Captured
from ..engines.target import Target
from ..graph.ambient import explicit
from ..graph.patterns import exact_pattern
from ..lowering.divide import Failures, divide, divide_again
from ..lowering.lower import normalize_model
from ..partition.partition import Cluster
from ..quantization.quantize import quantize
from ..quantization.scale_table import ScaleTable
from ..runtime.detector_call import guarded
from ..runtime.guarded_forward import GuardedForward
from ..settings import Settings
from .node_precision import Narrow, NodePrecision, rounds
from .simulated_run import SimulatedRun

__all__ = [
    "MILDEST_FIRST",
    "Demoted",
    "Division",
    "Forwards",
    "SimulatedGraph",
    "Simulation",
    "Unit",
    "copied_graph",
    "fresh",
    "settings_with",
]

Demoted = Mapping[str, Collection[str]]
"""The patterns of demoted calls, by the setting that demotes them."""

MILDEST_FIRST = ("keep_fp16", "keep_fp32")
"""The settings that demote calls: from int8 to float16, and from any narrow type to float32."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest unit that can be demoted: one call, in each graph that has it.

    entry: the pattern that names it, and nothing else, in settings.
    node:  the call in the first of these graphs.
    """

    entry: str
    node: Node


@dataclass(frozen=True, slots=True)
class Division:
    """A graph as it is quantized and divided with some demotions.

    named:    its calls by their patterns, without those that quantizing and dividing add.
    products: the patterns of the calls that compute in int8.
    """

    gm: GraphModule
    clusters: Sequence[Cluster]
    precision: NodePrecision
    named: Mapping[str, Node]
    products: Sequence[str]


class SimulatedGraph:
    """A normalized graph that is called like its module, and rounds as its engines would."""

    def __init__(
        self,
        gm: GraphModule,
        target: Target,
        scales: ScaleTable | None = None,
        failures: Failures = (),
    ) -> None:
        """Divide a graph as it would be divided for its engines.

        Args:
            gm: stays as it is.
            scales: what int8 computes with.
            failures: what failed when engines of the same graph were built.
        """
        self._gm, self._target, self._scales, self._failures = gm, target, scales, failures
        self._made: dict[frozenset[tuple[str, tuple[str, ...]]], Division] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.narrow = Narrow({}, {})
        self.divided = self._division({})
        self.products = tuple(self.divided.products)
        self.units = self._units()
        self.demote({})

    def demote(self, demoted: Demoted) -> None:
        """Compute the calls with these patterns in wider types from now on, and no others."""
        self.divided = self._division(demoted)
        named = self.divided.named
        kept = [named[one] for one in demoted.get("keep_fp32", ()) if one in named]
        with explicit():
            self.narrow = self.divided.precision.narrow(kept)

    def run_with(self, run: Interpreter, args: Any, kwargs: Any) -> Any:
        """Run the graph by an interpreter of its nodes."""
        leaves = pytree.tree_leaves((args, kwargs))
        result = run.run(*leaves, enable_io_processing=False)
        return self._gm.graph.process_outputs(result)

    def _units(self) -> dict[str, list[Unit]]:
        """Return what can be demoted, by the setting that does it."""
        first = self.divided.named
        self.demote({"keep_fp16": self.products})
        named, narrow = self.divided.named, self.narrow.inside
        return {
            "keep_fp16": [Unit(entry, first[entry]) for entry in self.products],
            "keep_fp32": [
                Unit(entry, node)
                for entry, node in named.items()
                if node in narrow and rounds(node)
            ],
        }

    def _division(self, demoted: Demoted) -> Division:
        """Quantize and divide a copy of the graph; where nothing computes in int8, only once."""
        products = self.products if self._made else ()
        of_int8 = {
            setting: tuple(sorted(set(entries).intersection(products)))
            for setting, entries in demoted.items()
        }
        key = frozenset(item for item in of_int8.items() if item[1])
        if key not in self._made:
            self._made[key] = self._divide(of_int8)
        return self._made[key]

    def _divide(self, demoted: Demoted) -> Division:
        gm = copied_graph(self._gm)
        named = {exact_pattern(node): node for node in _calls(gm)}
        target = self._target.with_settings(settings_with(self._target.settings, demoted))
        with explicit():
            quantized = quantize(gm, target, self._scales)
            divided = divide(gm, target, divide_again(gm, target, self._failures))
        products = [exact_pattern(node) for node in quantized.products]
        return Division(gm, divided.clusters, NodePrecision(gm, divided.clusters), named, products)


Run = Callable[[int, SimulatedGraph, Any, Any], Any]
"""Runs a graph, with its number, on the positional and the keyword arguments of a call."""


def _simulated(number: int, graph: SimulatedGraph, args: Any, kwargs: Any) -> Any:
    return graph.run_with(SimulatedRun(graph.divided.gm, graph.narrow, graph.weights), args, kwargs)


class Simulation:
    """A captured model whose graphs are run by `SimulatedGraph`s."""

    def __init__(
        self,
        captured: Captured,
        target: Target,
        scales: ScaleTable | None = None,
        failures: Sequence[Failures] = (),
    ) -> None:
        """Normalize and divide the graphs.

        Args:
            captured: a model whose graphs are changed: see `fresh`.
            scales: what int8 computes with.
            failures: what failed when engines of each graph were built.
        """
        normalize_model(captured, target.settings)
        self.model = captured.model
        self._parts = [*captured.parts, *captured.others]
        self.graphs: list[SimulatedGraph] = []
        for part, known in zip(self._parts, failures or [()] * len(self._parts), strict=True):
            self.graphs.append(SimulatedGraph(part.graph, target, scales, known))
            target = target.with_less_fuel(len(self.graphs[-1].divided.clusters))
        pairs = zip(self._parts, self.graphs, strict=True)
        self._run: Run = _simulated
        self._forwards = [
            guarded(part, part.graph, self._runner(number, graph), target.settings)
            for number, (part, graph) in enumerate(pairs)
        ]

    def _runner(self, number: int, graph: SimulatedGraph) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._run(number, graph, args, kwargs)

    @property
    def units(self) -> dict[str, list[Unit]]:
        """Return what can be demoted, by the setting that does it, in graph order."""
        found: dict[str, dict[str, Unit]] = {setting: {} for setting in MILDEST_FIRST}
        for graph in self.graphs:
            for setting, units in graph.units.items():
                for unit in units:
                    found[setting].setdefault(unit.entry, unit)
        return {setting: list(units.values()) for setting, units in found.items()}

    def demote(self, demoted: Demoted) -> None:
        """Compute the calls with these patterns in wider types from now on, and no others."""
        for graph in self.graphs:
            graph.demote(demoted)

    @contextmanager
    def in_place(self, run: Run | None = None) -> Iterator[torch.nn.Module]:
        """While the block runs, the model runs the simulated graphs.

        Args:
            run: runs one of the graphs in place of the simulation.
        """
        self._run = run or _simulated
        modules = [part.module for part in self._parts]
        with Forwards(modules):
            for module, forward in zip(modules, self._forwards, strict=True):
                module.forward = forward
            yield self.model

    @property
    def reasons(self) -> Mapping[str, int]:
        """Return why calls did not run in the simulated graphs, with how many there were."""
        counts: dict[str, int] = {}
        for forward in self._forwards:
            counts |= dict(forward.fallbacks)
        return counts

    @property
    def simulated_calls(self) -> int:
        """Count the calls of modules that ran in the simulated graphs."""
        return sum(f.fallbacks.compiled for f in _distinct(self._forwards))


class Forwards:
    """Gives modules back, at the end of a block, the `forward` that they had at its beginning."""

    def __init__(self, modules: Sequence[torch.nn.Module]) -> None:
        self._before = [(one.__dict__, one.__dict__.get("forward")) for one in modules]

    def keep(self) -> None:
        """Let the modules keep the `forward` that they have."""
        self._before.clear()

    def __enter__(self) -> Forwards:
        return self

    def __exit__(self, *_: object) -> None:
        for attributes, forward in self._before:
            attributes.pop("forward", None)
            if forward is not None:
                attributes["forward"] = forward


def _distinct(forwards: Sequence[GuardedForward]) -> list[GuardedForward]:
    return list({id(forward.fallbacks): forward for forward in forwards}.values())


def settings_with(settings: Settings, demoted: Demoted) -> Settings:
    """Return the settings that demote these calls too."""
    return replace(
        settings,
        keep_fp16=(*settings.keep_fp16, *demoted.get("keep_fp16", ())),
        keep_fp32=(*settings.keep_fp32, *demoted.get("keep_fp32", ())),
    )


def fresh(captured: Captured) -> Captured:
    """Return the same model with copies of its graphs, which share their weights."""
    return replace(
        captured,
        parts=[_copied(part) for part in captured.parts],
        others=[_copied(part) for part in captured.others],
    )


def _copied(part: ModelPart) -> ModelPart:
    return replace(part, graph=copied_graph(part.graph))


def copied_graph(gm: GraphModule) -> GraphModule:
    """Return a copy with nodes of the same names, which shares weights and fake values."""
    copied = GraphModule(gm, copy.deepcopy(gm.graph))
    copied.meta = dict(gm.meta)
    copied.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    return copied


def _calls(gm: GraphModule) -> list[Node]:
    return [node for node in gm.graph.nodes if node.op == "call_function"]
