"""Turns an example model into a measurement of its clusters, errors and plans."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo import Example
from zoo_inputs import Shapes, make

import fxtrt
from fxtrt.builder.build import build
from fxtrt.engines.select import select
from fxtrt.errors import FxtrtError
from fxtrt.runtime.engine_module import EngineModule
from fxtrt.runtime.guarded_forward import GuardedForward

__all__ = ["ARCHITECTURES", "TOLERANCE", "Measurement", "Run", "from_float64", "measure"]

TOLERANCE = 1e-4
ARCHITECTURES = ("sm80", "sm89", "sm120")


@dataclass(frozen=True, slots=True)
class Run:
    """One graph of a model, compiled for `reference` and compared with eager.

    clusters, layers: the numbers of clusters and of TensorRT's layers.
    converted, nodes: the numbers of compute nodes inside clusters, and of all compute nodes.
    flops_share:      the share of FLOPs inside clusters, 0..1.
    error:            the largest difference from eager, as a share of its output's magnitude.
    from_float64:     if the error is above `TOLERANCE`, the largest differences from the model in
                      float64: of the engines, and of eager, which tells how well conditioned it is.
    plan_seconds:     the time to build the TensorRT-RTX plans of all clusters for `ARCHITECTURES`.
    plan_mib:         the size of these plans.
    outside:          the nodes that run in PyTorch and why, with their numbers.
    problem:          why there is no result; then all other fields are 0.
    """

    clusters: int = 0
    layers: int = 0
    converted: int = 0
    nodes: int = 0
    flops_share: float = 0.0
    error: float = 0.0
    from_float64: tuple[float, ...] = ()
    plan_seconds: float = 0.0
    plan_mib: float = 0.0
    outside: tuple[str, ...] = ()
    problem: str = ""

    @property
    def whole(self) -> bool:
        """Whether one cluster has all the work, and is equal to eager."""
        return (
            not self.problem
            and self.clusters == 1
            and self.converted == self.nodes
            and self.flops_share == 1.0
            and self.error <= TOLERANCE
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """The runs of a model's static and dynamic graph."""

    source: str
    name: str
    varies: str
    static: Run
    dynamic: Run


def measure(example: Example, *, plans: bool = True) -> Measurement:
    """Compile `example` with static and with dynamic sizes, and compare with eager.

    Args:
        plans: whether to build TensorRT-RTX plans too.
    """
    inputs, model = example.inputs, example.model()
    static = _run(model, None, inputs.example, (), plans)
    dynamic = _run(model, inputs.dynamic, inputs.traced, inputs.others, plans)
    return Measurement(example.source, example.name, inputs.varies, static, dynamic)


def _run(
    model: nn.Module, dynamic: Any, traced: Shapes, others: Sequence[Shapes], plans: bool
) -> Run:
    try:
        compiled = fxtrt.compile(
            model,
            make(traced),
            engine="reference",
            dynamic_shapes=dynamic,
            min_cluster_size=1,
            on_build_failure="raise",
        )
        with torch.no_grad():
            sizes = [make(shapes) for shapes in (traced, *others)]
            error = max(_error(compiled, model, inputs) for inputs in sizes)
            own = from_float64(compiled, model, sizes) if error > TOLERANCE else ()
        engines = list(_engines(compiled))
        seconds, mib = _plans(engines) if plans else (0.0, 0.0)
    except FxtrtError as failure:
        return Run(problem=" ".join(str(failure).split()))
    coverage = fxtrt.report(compiled)
    counted = Counter(f"{row.target}: {row.detail}" for row in coverage.rejections)
    builds = [row.build for row in coverage.clusters]
    return Run(
        clusters=len(coverage.clusters),
        layers=sum(info.layers or 0 for info in builds if info is not None),
        converted=coverage.converted,
        nodes=coverage.nodes,
        flops_share=coverage.flops_share,
        error=error,
        from_float64=own,
        plan_seconds=seconds,
        plan_mib=mib,
        outside=tuple(f"{count}x {reason}" for reason, count in counted.items()),
        problem=_fallbacks(compiled, engines),
    )


def _error(compiled: nn.Module, model: nn.Module, inputs: tuple[Any, ...]) -> float:
    return _difference(compiled(*inputs), model(*inputs))


def from_float64(
    compiled: nn.Module, model: nn.Module, sizes: Sequence[tuple[Any, ...]]
) -> tuple[float, float]:
    """Return the largest differences of `compiled` and `model` from `model` in float64."""
    exact = copy.deepcopy(model).double()
    answers = [exact(*pytree.tree_map(torch.Tensor.double, inputs)) for inputs in sizes]
    engines, eager = (
        max(_difference(m(*i), a) for i, a in zip(sizes, answers, strict=True))
        for m in (compiled, model)
    )
    return engines, eager


def _difference(actual: Any, expected: Any) -> float:
    """Return the largest difference of an output, as a share of the output's largest magnitude."""
    pairs = zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True)
    return max(float((a - e).abs().max() / e.abs().max()) for a, e in pairs)


def _guards(compiled: nn.Module) -> Iterator[GuardedForward]:
    for module in compiled.modules():
        if isinstance(module.forward, GuardedForward):
            yield module.forward


def _engines(compiled: nn.Module) -> Iterator[EngineModule]:
    for guard in _guards(compiled):
        for module in guard.graph.modules():
            if isinstance(module, EngineModule):
                yield module


def _fallbacks(compiled: nn.Module, engines: Sequence[EngineModule]) -> str:
    """Return why any of the calls so far did not run in engines, or an empty text."""
    ran: list[EngineModule | GuardedForward] = [*engines, *_guards(compiled)]
    return "; ".join(reason for call in ran for reason in call.fallbacks)


def _plans(engines: Sequence[EngineModule]) -> tuple[float, float]:
    """Build plans for `ARCHITECTURES`, and return the seconds and MiB that they take."""
    settings = fxtrt.Settings(compute_capabilities=ARCHITECTURES, cache_dir=None)
    start = time.perf_counter()
    results = build([(e.fallback, settings) for e in engines], select("tensorrt_rtx"))
    seconds = time.perf_counter() - start
    size = 0
    for result in results:
        if not isinstance(result, tuple):
            raise result
        size += result[1].plan_bytes or 0
    return seconds, size / 2**20
