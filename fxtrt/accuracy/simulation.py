"""Run a captured model in PyTorch as its engines would: each node in its precision, no builds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from ..capture.model_part import ModelPart
from ..capture.model_parts import Captured
from ..engines.target import Target
from ..graph.ambient import explicit
from ..graph.patterns import exact_pattern
from ..lowering.divide import Failures, divide, divide_again
from ..lowering.lower import normalize_model
from ..passes.insert_casts import is_product
from ..runtime.detector_call import guarded
from ..runtime.guarded_forward import GuardedForward
from .node_precision import Narrow, NodePrecision, rounds

__all__ = [
    "Forwards",
    "SimulatedGraph",
    "SimulatedRun",
    "Simulation",
    "Unit",
    "fresh",
    "round_to",
]

aten = torch.ops.aten

_WITH_NUMBERS = {aten.add, aten.sub, aten.mul}
"""Followers whose Python numbers become constants of the narrow type."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What can be demoted by itself: one call, in each graph that has it.

    entry: the pattern that names it, and nothing else, in settings.
    node:  the call in the first of these graphs.
    """

    entry: str
    node: Node


class SimulatedGraph:
    """A normalized graph that is called like its module, and rounds as its engines would."""

    def __init__(self, gm: GraphModule, target: Target, failures: Failures = ()) -> None:
        """Divide a graph as it would be divided for its engines.

        Args:
            failures: what failed when engines of the same graph were built.
        """
        self.gm = gm
        # The division copies cheap nodes, which no setting can name.
        self.named = {exact_pattern(node): node for node in _calls(gm)}
        with explicit():
            divided = divide(gm, target, divide_again(gm, target, failures))
        self.clusters = divided.clusters
        self._precision = NodePrecision(gm, self.clusters)
        self.weights = dict[Node, torch.Tensor]()
        self.narrow = Narrow({}, {})
        self.units = [Unit(entry, node) for entry, node in self.named.items()]
        self.keep(())
        self.units = [u for u in self.units if u.node in self.narrow.inside and rounds(u.node)]

    def keep(self, entries: Collection[str]) -> None:
        """Compute the nodes with these patterns in float32 from now on, and no others."""
        with explicit():
            self.narrow = self._precision.narrow(
                [self.named[entry] for entry in entries if entry in self.named]
            )

    def run_with(self, run: Interpreter, args: Any, kwargs: Any) -> Any:
        """Run the graph by an interpreter of its nodes."""
        leaves = pytree.tree_leaves((args, kwargs))
        result = run.run(*leaves, enable_io_processing=False)
        return self.gm.graph.process_outputs(result)


class SimulatedRun(Interpreter):
    """Runs a graph once; what is narrow is rounded, and accumulates in float32 as kernels do."""

    def __init__(
        self, gm: GraphModule, narrow: Narrow, weights: dict[Node, torch.Tensor] | None = None
    ) -> None:
        """Begin a run.

        Args:
            weights: the rounded weights of earlier runs, to which those of this one are added.
        """
        super().__init__(gm)
        self.narrow = narrow
        self._weights = {} if weights is None else weights

    def run_node(self, n: Node) -> Any:
        dtype = self.narrow.inside.get(n)
        if dtype is None:
            return round_to(super().run_node(n), self.narrow.derived.get(n))
        return self.run_narrow(n, dtype)

    def run_narrow(self, node: Node, dtype: torch.dtype, *, rounds_inputs: bool = False) -> Any:
        """Run a call as an engine that computes it in `dtype`.

        Args:
            rounds_inputs: whether inputs are wide where they would be narrow in an engine.
        """
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if is_product(node) or rounds_inputs:
            args, kwargs = self._rounded_arguments(node, dtype)
        if isinstance(node.target, OpOverload) and node.target.overloadpacket in _WITH_NUMBERS:
            args, kwargs = pytree.tree_map_only(
                float, lambda number: float(torch.tensor(number).to(dtype)), (args, kwargs)
            )
        value = self.call_function(node.target, args, kwargs)
        return round_to(value, dtype) if rounds(node) else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, OpOverload) and target._schema.is_mutable:
            # The operator writes to copies, so that buffers and inputs stay as they are.
            args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def _rounded_arguments(self, node: Node, dtype: torch.dtype) -> Any:
        def value_of(source: Node) -> Any:
            if source.op != "get_attr":
                return round_to(self.env[source], dtype)
            if source not in self._weights:
                self._weights[source] = round_to(self.env[source], dtype)
            return self._weights[source]

        return torch.fx.node.map_arg((node.args, node.kwargs), value_of)


Run = Callable[[int, SimulatedGraph, Any, Any], Any]
"""Runs a graph, with its number, on the positional and the keyword arguments of a call."""


def _simulated(number: int, graph: SimulatedGraph, args: Any, kwargs: Any) -> Any:
    return graph.run_with(SimulatedRun(graph.gm, graph.narrow, graph.weights), args, kwargs)


class Simulation:
    """A captured model whose graphs are run by `SimulatedGraph`s."""

    def __init__(
        self, captured: Captured, target: Target, failures: Sequence[Failures] = ()
    ) -> None:
        """Normalize and divide the graphs.

        Args:
            captured: a model whose graphs are changed: see `fresh`.
        """
        normalize_model(captured, target.settings)
        self.model = captured.model
        self._parts = [*captured.parts, *captured.others]
        self.graphs: list[SimulatedGraph] = []
        for part, known in zip(self._parts, failures or [()] * len(self._parts), strict=True):
            self.graphs.append(SimulatedGraph(part.graph, target, known))
            target = target.with_less_fuel(len(self.graphs[-1].clusters))
        pairs = zip(self._parts, self.graphs, strict=True)
        self._run: Run = _simulated
        self._forwards = [
            guarded(part, part.graph, self._runner(number, graph), target.settings)
            for number, (part, graph) in enumerate(pairs)
        ]

    def _runner(self, number: int, graph: SimulatedGraph) -> Callable[..., Any]:
        return lambda *args, **kwargs: self._run(number, graph, args, kwargs)

    @property
    def units(self) -> list[Unit]:
        """Return what can be demoted: the calls that round in a narrow type, in graph order."""
        units: dict[str, Unit] = {}
        for graph in self.graphs:
            for unit in graph.units:
                units.setdefault(unit.entry, unit)
        return list(units.values())

    def keep(self, entries: Collection[str]) -> None:
        """Compute the nodes with these patterns in float32 from now on, and no others."""
        for graph in self.graphs:
            graph.keep(entries)

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


def fresh(captured: Captured) -> Captured:
    """Return the same model with copies of its graphs, which share their weights."""
    return replace(
        captured,
        parts=[_copied(part) for part in captured.parts],
        others=[_copied(part) for part in captured.others],
    )


def _copied(part: ModelPart) -> ModelPart:
    graph = GraphModule(part.graph, copy.deepcopy(part.graph.graph))
    graph.meta = dict(part.graph.meta)
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    return replace(part, graph=graph)


def round_to(value: Any, dtype: torch.dtype | None) -> Any:
    """Return a value whose float32 tensors are rounded to `dtype`, and stay float32."""
    if dtype is None:
        return value
    return pytree.tree_map_only(torch.Tensor, lambda tensor: _rounded(tensor, dtype), value)


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype).float() if tensor.dtype == torch.float32 else tensor


def _calls(gm: GraphModule) -> list[Node]:
    return [node for node in gm.graph.nodes if node.op == "call_function"]
