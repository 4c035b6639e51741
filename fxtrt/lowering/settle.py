"""Builds the clusters of a graph, and plans again around those that fail or lose to PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch.fx import GraphModule, Node

from ..builder.build import (
    BuildFailure,
    BuildInfo,
    build,
)
from ..cache.engine_key import EngineKey
from ..cache.plan_file import PlanHeader
from ..cache.plan_store import PlanStores
from ..cache.store import PlanCache
from ..engines.base import EngineBackend
from ..graph.patterns import Patterns
from ..graph.sizes import input_sizes
from ..partition.extract import Cutting, cut
from ..partition.partition import (
    Cluster,
    Partition,
    partition,
    without,
)
from ..partition.support import support
from ..registry import Rejection
from ..runtime.engine_module import EngineModule
from ..runtime.timing import Timing, measure
from ..settings import Settings
from .cluster_inputs import border_values, made_up_values
from .delta_debugging import smallest_failing

__all__ = ["Built", "Settled", "build_cluster", "plan", "settle"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Built:
    """A cluster with its engine."""

    cutting: Cutting
    module: EngineModule
    info: BuildInfo


@dataclass(frozen=True, slots=True)
class Settled:
    """A plan all of whose clusters are built, in order."""

    plan: Partition
    built: Sequence[Built]


def plan(
    gm: GraphModule,
    backend: EngineBackend,
    settings: Settings,
    put_out: Mapping[Node, Rejection] | None = None,
) -> Partition:
    """Where each call of `gm` will run. Nothing is built.

    Args:
        put_out: nodes that turned out not to build, and why.
    """

    sizes = input_sizes(gm.graph)

    def why_not(node: Node, whitelisted: bool) -> Rejection | None:
        known = (put_out or {}).get(node)
        return known or support(node, backend, whitelisted=whitelisted, sizes=sizes)

    settled = partition(gm, why_not, settings)
    if settings.fuel is None:
        return settled
    detail = f"fuel={settings.fuel}: only so many clusters are converted"
    spent = [node for cluster in settled.clusters[settings.fuel :] for node in cluster.nodes]
    return without(gm, settled, dict.fromkeys(spent, Rejection("fuel", detail)))


def settle(
    gm: GraphModule,
    backend: EngineBackend,
    settings: Settings,
    inputs: Sequence[Any] | None = None,
    stores: PlanStores = PlanCache.of,
) -> Settled:
    """Plan `gm` and build its clusters; leave out those that fail or, if measured, lose.

    Args:
        inputs: one value for each placeholder, to measure with; None makes values up.
        stores: where plans and timings are kept.

    Raises:
        EngineError, ConversionError: with `on_build_failure="raise"` only.
    """
    return _Settlement(gm, backend, settings, inputs, stores).run()


def build_cluster(cutting: Cutting, backend: EngineBackend) -> tuple[EngineModule, BuildInfo]:
    """The module that runs a cluster, and how its engine came about.

    Raises:
        EngineError, ConversionError: it did not build.
    """
    (result,) = _build_clusters([cutting], backend, PlanCache.of)
    if not isinstance(result, tuple):
        raise result
    return result


_Result = tuple[EngineModule, BuildInfo] | BuildFailure


def _build_clusters(
    cuttings: Sequence[Cutting], backend: EngineBackend, stores: PlanStores
) -> list[_Result]:
    built = build([(one.module, one.cluster.settings) for one in cuttings], backend, stores)
    results: list[_Result] = []
    for cutting, result in zip(cuttings, built, strict=True):
        if isinstance(result, tuple):
            engine, info = result
            module = EngineModule(cutting.cluster.name, engine, cutting.module)
            results.append((module, info))
        else:
            results.append(result)
    return results


class _Settlement:
    def __init__(
        self,
        gm: GraphModule,
        backend: EngineBackend,
        settings: Settings,
        inputs: Sequence[Any] | None,
        stores: PlanStores,
    ) -> None:
        self._gm, self._backend, self._settings = gm, backend, settings
        self._stores = stores
        self._inputs = inputs
        self._results: dict[Any, _Result] = {}

    def run(self) -> Settled:
        put_out: dict[Node, Rejection] = {}
        while True:
            planned = plan(self._gm, self._backend, self._settings, put_out)
            built, failed = self._build_all(planned)
            if not failed or self._settings.on_build_failure != "bisect":
                break
            for cutting, error in failed:
                why_not = partial(self._why_not_built, cutting.cluster.settings)
                nodes, cause = smallest_failing(cutting.cluster.nodes, error, why_not)
                put_out |= dict.fromkeys(nodes, Rejection("build_failed", str(cause)))
        rejected = {
            node: Rejection("build_failed", str(error))
            for cutting, error in failed
            for node in cutting.cluster.nodes
        }
        if self._settings.partition == "measured":
            built, slower = self._keep_faster(built)
            rejected |= slower
        return Settled(without(self._gm, planned, rejected), built)

    def _build_all(
        self, planned: Partition
    ) -> tuple[list[Built], list[tuple[Cutting, BuildFailure]]]:
        built: list[Built] = []
        failed: list[tuple[Cutting, BuildFailure]] = []
        cuttings = [cut(self._gm, cluster) for cluster in planned.clusters]
        for cutting, result in zip(cuttings, self._build(cuttings), strict=True):
            cluster = cutting.cluster
            if not isinstance(result, tuple):
                if self._settings.on_build_failure == "raise":
                    raise result
                log.warning("%s does not build: %s", cluster.name, result)
                failed.append((cutting, result))
                continue
            module, info = result
            module.name = cluster.name
            built.append(Built(cutting, module, info))
        return built, failed

    def _build(self, cuttings: Sequence[Cutting]) -> list[_Result]:
        """The module of each cluster, or why it does not build. Planning again may ask again."""
        keys = [(one.cluster.nodes, one.inputs, one.outputs) for one in cuttings]
        new = {k: one for k, one in zip(keys, cuttings, strict=True) if k not in self._results}
        results = _build_clusters(list(new.values()), self._backend, self._stores)
        self._results.update(zip(new, results, strict=True))
        return [self._results[key] for key in keys]

    def _why_not_built(self, settings: Settings, nodes: Sequence[Node]) -> BuildFailure | None:
        part = cut(self._gm, Cluster("part", tuple(nodes), settings))
        (result,) = _build_clusters([part], self._backend, self._stores)
        return None if isinstance(result, tuple) else result

    def _keep_faster(self, built: Sequence[Built]) -> tuple[list[Built], dict[Node, Rejection]]:
        """Those that win or that the whitelist names, with their timings; why not the others."""
        whitelist = Patterns(self._settings.whitelist)
        kept: list[Built] = []
        slower: dict[Node, Rejection] = {}
        for one, timing in zip(built, self._timings(built), strict=True):
            nodes = one.cutting.cluster.nodes
            if timing is None or timing.wins or any(map(whitelist.match, nodes)):
                kept.append(replace(one, info=replace(one.info, timing=timing)))
                continue
            detail = f"engine {timing.engine_ms:.3f} ms, PyTorch {timing.pytorch_ms:.3f} ms"
            slower |= dict.fromkeys(nodes, Rejection("slower", detail))
        return kept, slower

    def _timings(self, built: Sequence[Built]) -> list[Timing | None]:
        """From the cache or a clock; None where an engine cannot run here."""
        cache = self._stores(self._settings, "timing")
        keys = [
            EngineKey.of(one.cutting.module, self._backend, one.cutting.cluster.settings)
            for one in built
        ]
        known = [None if cache is None else cache.get(key) for key in keys]
        missing = [one for one, data in zip(built, known, strict=True) if data is None]
        borders = self._borders(missing)
        timings: list[Timing | None] = []
        for one, key, data in zip(built, keys, known, strict=True):
            if data is not None:
                timings.append(Timing.from_bytes(data.plan))
            elif one.module.engine is None:
                timings.append(None)
            else:
                timing = measure(one.module, [borders[node] for node in one.cutting.inputs])
                timings.append(timing)
                if cache is not None:
                    header = PlanHeader.of(one.cutting.module, self._backend)
                    cache.put(key, timing.to_bytes(), header)
        return timings

    def _borders(self, built: Sequence[Built]) -> dict[Node, Any]:
        """What the clusters take."""
        nodes = list(dict.fromkeys(node for one in built for node in one.cutting.inputs))
        if self._inputs is None:
            return dict(zip(nodes, made_up_values(nodes), strict=True))
        return border_values(self._gm, self._inputs, nodes) if nodes else {}
