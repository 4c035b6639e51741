"""Rank the calls of a model by the harm that a narrow type does to them, for what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from ..graph.fake_quantize import is_quantizer
from ..graph.flops import flops
from ..passes.insert_casts import is_product
from .node_precision import Narrow, rounds
from .simulated_run import SimulatedRun, round_to
from .simulation import SimulatedGraph, Unit

__all__ = ["LocalErrors", "by_harm_for_cost", "error_of"]

_RUINED = 1e6
"""The error of a result with an infinity or NaN that the wide result has not."""
_SHARED = 0.5
"""The share of a product's error from its rounded inputs that counts for the calls before it. They
help only together with the product."""
_SMALLEST = 1e-3
"""The size of a channel, as a share of the mean one, below which its errors count less."""


class LocalErrors:
    """Runs graphs in float32, and keeps the error of each call if it alone were narrow.

    errors: the largest error so far, relative to the result, by the setting that would demote the
            call and the call's pattern.
    """

    def __init__(self, graphs: Sequence[SimulatedGraph]) -> None:
        """Measure what is narrow, and in int8, in `graphs` now."""
        self.errors: dict[tuple[str, str], float] = {}
        self._names = [{n: entry for entry, n in g.divided.named.items()} for g in graphs]

    def measure(self, number: int, graph: SimulatedGraph, args: Any, kwargs: Any) -> Any:
        """Run graph `number` on the arguments of a call, and return its wide result."""
        run = _Measuring(graph)
        result = graph.run_with(run, args, kwargs)
        for (setting, node), error in run.errors.items():
            if (entry := self._names[number].get(node)) is not None:
                key = setting, entry
                self.errors[key] = max(error, self.errors.get(key, 0.0))
        return result


class _Measuring(SimulatedRun):
    def __init__(self, graph: SimulatedGraph) -> None:
        super().__init__(graph.divided.gm, graph.narrow, graph.weights)
        self.errors: dict[tuple[str, Node], float] = {}

    def run_node(self, n: Node) -> Any:
        if is_quantizer(n):
            return self.env[n.all_input_nodes[0]]
        value = Interpreter.run_node(self, n)
        dtype = self.narrow.inside.get(n)
        if dtype is not None and rounds(n):
            self._measure(n, dtype, value)
            if any(map(is_quantizer, n.all_input_nodes)):
                self._blame("keep_fp16", n, error_of(self._quantized(n, dtype), value))
        return value

    def _measure(self, node: Node, dtype: torch.dtype, wide: Any) -> None:
        """Tell the errors that come with the inputs of a call from those that it makes itself."""
        narrow = self.run_narrow(node, dtype, rounds_inputs=True)
        sources = list(_rounded_sources(node, self.narrow))
        given = self._of(node, dtype, self._rounded) if sources else wide
        if is_product(node):
            # A product rounds its inputs itself, so it is to blame for these errors as well.
            self._blame("keep_fp32", node, error_of(narrow, wide))
        else:
            self._blame("keep_fp32", node, error_of(narrow, given))
        share = _SHARED if is_product(node) else 1.0
        for source in sources:
            self._blame("keep_fp32", source, share * error_of(given, wide))

    def _quantized(self, node: Node, dtype: torch.dtype) -> Any:
        """Return the result of a call whose quantized inputs are rounded to int8."""

        def value_of(source: Node, dtype: torch.dtype) -> Any:
            if not is_quantizer(source):
                return self.env[source]
            # What it reads may be gone already, and this run gave it the same value.
            value = round_to(self.env[source], dtype)
            scale, *axis = source.args[1:]
            if isinstance(scale, Node):
                scale = self.fetch_attr(str(scale.target))
            return round_to(self.call_function(source.target, (value, scale, *axis), {}), dtype)

        return self._of(node, dtype, value_of)

    def _rounded(self, source: Node, dtype: torch.dtype) -> Any:
        return round_to(self.env[source], dtype if source in self.narrow.inside else None)

    def _of(
        self, node: Node, dtype: torch.dtype, value_of: Callable[[Node, torch.dtype], Any]
    ) -> Any:
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs), lambda source: value_of(source, dtype)
        )
        return self.call_function(node.target, args, kwargs)

    def _blame(self, setting: str, node: Node, error: float) -> None:
        self.errors[setting, node] = max(error, self.errors.get((setting, node), 0.0))


def _rounded_sources(node: Node, narrow: Narrow) -> Iterator[Node]:
    """Yield the calls whose rounded results `node` reads, maybe through calls that round none."""
    pending, seen = list(node.all_input_nodes), set[Node]()
    while pending:
        source = pending.pop()
        if source in seen or source not in narrow.inside:
            continue
        seen.add(source)
        if rounds(source) and not is_quantizer(source):
            yield source
        else:
            pending += source.all_input_nodes


def error_of(narrow: Any, wide: Any) -> float:
    """Return the largest error of the tensors in `narrow`, relative to those in `wide`."""
    pairs = zip(pytree.tree_leaves(narrow), pytree.tree_leaves(wide), strict=True)
    return max((_relative_error(a, b) for a, b in pairs if isinstance(a, torch.Tensor)), default=0)


def _relative_error(narrow: torch.Tensor, wide: torch.Tensor) -> float:
    """Return the mean over channels of the error of each relative to its size."""
    if not narrow.is_floating_point() or not wide.numel():
        return 0.0
    if not bool(narrow.isfinite().all()):
        return _RUINED if bool(wide.isfinite().all()) else 0.0
    wide = wide.float()
    gap = (narrow.float() - wide).square()
    axes = [axis for axis in range(wide.dim()) if axis != 1] if wide.dim() > 2 else None
    sizes, gaps = (t.mean(axes) if axes else t.mean() for t in (wide.square(), gap))
    floor = _SMALLEST**2 * sizes.mean() + torch.finfo(torch.float32).tiny
    return float((gaps / sizes.clamp(min=floor)).sqrt().mean())


def by_harm_for_cost(
    units: Sequence[Unit], setting: str, errors: Mapping[tuple[str, str], float]
) -> list[Unit]:
    """Return the units whose demotion most likely helps first.

    The harm of a unit is the energy of its error. Its cost is its share of the FLOPs, and as much
    again as the mean one for casts, which those without FLOPs need too.
    """
    counts = {unit: flops(unit.node) for unit in units}
    total = max(1, sum(counts.values()))

    def score(unit: Unit) -> float:
        cost = counts[unit] / total + 1 / len(units)
        return float(errors.get((setting, unit.entry), 0.0)) ** 2 / cost

    return sorted(units, key=score, reverse=True)
