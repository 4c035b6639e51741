"""Turns a cluster into a loaded engine: from the cache, or through network and plan."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch.fx import GraphModule

from .cache import PlanCache
from .convert import convert, input_specs, output_specs
from .engine_key import EngineKey
from .engines.base import Engine, EngineBackend
from .engines.network import Network
from .measure import Timing
from .plan_file import PlanHeader
from .settings import Settings

__all__ = ["BuildInfo", "build"]


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """How an engine came about.

    layers:     of the network; None where the plan came from the cache.
    plan_bytes: None for an engine without a plan.
    timing:     of its calls, where the partition is measured.
    """

    seconds: float
    layers: int | None
    plan_bytes: int | None
    cached: bool
    timing: Timing | None = None


def build(
    cluster: GraphModule, backend: EngineBackend, settings: Settings
) -> tuple[Engine | None, BuildInfo]:
    """The engine of `cluster`; None where its plan cannot run on this machine.

    Raises:
        ConversionError: a node did not become layers.
        BuildError: TensorRT built no plan.
    """
    start = time.perf_counter()
    if not backend.plans:
        network = convert(cluster, backend.features)
        engine = backend.load(network, network.inputs, network.outputs)
        seconds = time.perf_counter() - start
        return engine, BuildInfo(seconds, network.definition.num_layers, None, cached=False)
    plan, network_or_none = _plan(cluster, backend, settings)
    inputs, outputs = input_specs(cluster), output_specs(cluster)
    loaded = backend.load(plan, inputs, outputs) if backend.runnable else None
    layers = None if network_or_none is None else network_or_none.definition.num_layers
    seconds = time.perf_counter() - start
    return loaded, BuildInfo(seconds, layers, len(plan), cached=network_or_none is None)


def _plan(
    cluster: GraphModule, backend: EngineBackend, settings: Settings
) -> tuple[bytes, Network | None]:
    """The plan, and the network that it was built from, if it was not cached."""
    cache = PlanCache.of(settings)
    if cache is None:
        network = convert(cluster, backend.features)
        return backend.build(network, settings), network
    key = EngineKey.of(cluster, backend, settings)
    if (plan := cache.get(key)) is not None:
        return plan, None
    network = convert(cluster, backend.features)
    plan = backend.build(network, settings)
    cache.put(key, plan, PlanHeader.of(cluster, backend))
    return plan, network
