"""Turns clusters into loaded engines, with plans from the cache or newly built ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from torch.fx import GraphModule

from ..cache.engine_key import EngineKey
from ..cache.plan_file import PlanHeader
from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..conversion.convert import (
    convert,
    input_specs,
    output_specs,
)
from ..engines.base import (
    Engine,
    EngineBackend,
    Progress,
)
from ..engines.network import Network
from ..engines.target import Target
from ..errors import ConversionError, EngineError
from ..graph.weights import attribute
from ..settings import Settings
from .casts import with_precision
from .pool import BuildPool
from .progress import BuildProgress

__all__ = ["BuildFailure", "BuildInfo", "BuildResult", "build"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """Says how an engine was made, and what it took.

    seconds:    the time that conversion, building and loading took together. Other builds may have
                run at the same time.
    layers:     the number of layers in the network; None if the plan came from the cache.
    plan_bytes: the size of the plan; None for an engine without a plan.
    cached:     whether the plan came from the cache.
    kept_fp32:  "node: reason" for each node that does not compute in `Settings.precision`, because
                a weight or a scalar is out of its range.
    """

    seconds: float
    layers: int | None
    plan_bytes: int | None
    cached: bool
    kept_fp32: tuple[str, ...] = ()


BuildFailure = EngineError | ConversionError
BuildResult = tuple[Engine | None, BuildInfo] | BuildFailure
"""The engine, or None if its plan cannot run on this machine; or else the error of the build."""


def build(
    clusters: Sequence[tuple[GraphModule, Settings]],
    backend: EngineBackend,
    stores: PlanStores = PlanCache.of,
) -> list[BuildResult]:
    """Build an engine of each of `clusters` with its settings; return engines or errors in order.

    Networks are made one after the other. Plans are built in parallel where the backend and memory
    allow it. An interrupt cancels running builds, and leaves no incomplete file.

    Args:
        stores: gives the store where plans are looked for first, and where new ones are kept.
    """
    # This line is for logs: on a terminal, `BuildProgress` shows a bar.
    log.info("building engines: %d", len(clusters))
    sizes = [len(cluster.graph.nodes) for cluster, _ in clusters]
    most = 1 if backend.times_kernels else len(clusters)
    targets = [Target(backend, settings) for _, settings in clusters]
    with BuildProgress(sizes) as bar, BuildPool(bar, most) as pool:
        started = []
        for number, ((cluster, _), target) in enumerate(zip(clusters, targets, strict=True)):
            started.append(_start(number, cluster, target, pool, stores))
            if not isinstance(started[-1], Future):
                bar.update(number, 1.0)
        pairs = zip(clusters, started, strict=True)
        return [_finish(cluster, one, backend, pool) for (cluster, _), one in pairs]


@dataclass(frozen=True, slots=True)
class _Made:
    """The plan or network of an engine; `layers` is None if the plan came from the cache."""

    plan: bytes | Network
    seconds: float
    layers: int | None
    kept_fp32: tuple[str, ...]


_Started = _Made | Future[_Made] | BuildFailure


def _start(
    number: int,
    cluster: GraphModule,
    target: Target,
    pool: BuildPool,
    stores: PlanStores,
) -> _Started:
    """Take the plan from the cache, or make the network and start the build of its plan."""
    backend, settings = target.backend, target.settings
    if not backend.plans:
        return _network(cluster, target)
    begun = time.perf_counter()
    if cache := stores(settings, "plan"):
        key = EngineKey.of(cluster, target)
        if (stored := cache.get(key)) is not None:
            seconds = time.perf_counter() - begun
            return _Made(stored.plan, seconds, None, stored.header.kept_fp32)
    weights = cluster.graph.find_nodes(op="get_attr")
    weight_bytes = sum(attribute(cluster, node).nbytes for node in weights)
    pool.wait_for_room(weight_bytes)
    made = _network(cluster, target)
    if not isinstance(made, _Made):
        return made
    header = PlanHeader.of(cluster, backend, made.kept_fp32)

    def build_plan(progress: Progress) -> _Made:
        begun = time.perf_counter()
        assert isinstance(made.plan, Network)
        plan = backend.build(made.plan, settings, progress)
        if cache:
            cache.put(key, plan, header)
        return replace(made, plan=plan, seconds=made.seconds + time.perf_counter() - begun)

    return pool.submit(number, weight_bytes, build_plan)


def _network(cluster: GraphModule, target: Target) -> _Made | ConversionError:
    begun = time.perf_counter()
    settled, kept = with_precision(cluster, target.settings)
    for line in kept:
        log.warning("%s stays float32: %s", *line.split(": ", 1))
    try:
        network = convert(settled, target.backend.features)
    except ConversionError as error:
        return error
    return _Made(network, time.perf_counter() - begun, network.definition.num_layers, kept)


def _finish(
    cluster: GraphModule, started: _Started, backend: EngineBackend, pool: BuildPool
) -> BuildResult:
    """Wait for the plan, and load it if this machine can run it."""
    try:
        made = pool.result(started) if isinstance(started, Future) else started
        if not isinstance(made, _Made):
            return made
        begun = time.perf_counter()
        specs = input_specs(cluster), output_specs(cluster)
        engine = backend.load(made.plan, *specs) if backend.runnable else None
    except EngineError as error:
        return error
    seconds = made.seconds + time.perf_counter() - begun
    plan_bytes = len(made.plan) if isinstance(made.plan, bytes) else None
    cached = made.layers is None
    return engine, BuildInfo(seconds, made.layers, plan_bytes, cached, kept_fp32=made.kept_fp32)
