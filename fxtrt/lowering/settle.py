"""Builds the clusters of a graph, and leaves out those that fail or are slower than PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from ..engines.target import Target
from ..errors import EngineError
from ..graph.ambient import explicit
from ..graph.patterns import Patterns
from ..partition.extract import Extracted, extract
from ..partition.partition import (
    Cluster,
    Partition,
    without,
)
from ..registry import Rejection
from ..runtime.engine_check import EngineCheck
from ..runtime.engine_module import EngineModule
from ..runtime.timing import Timing, measure
from ..settings import Settings
from .cluster_inputs import made_up_values, recorded_values
from .culprits import Culprits
from .divide import Failures, divide, divide_again
from .forms import extract_all
from .int8_race import Int8Races, Racer, leave, not_built
from .self_check import SelfChecks

__all__ = ["Built", "Settled", "build_cluster", "settle"]

log = logging.getLogger(__name__)

_MOST_ROUNDS, _MOST_ROUNDS_BY_NAME = 12, 8
"""The most divisions whose clusters are built, and how many of them go by the names in errors.
After these, what fails is halved, and in the last round it stays in PyTorch."""


@dataclass(frozen=True, slots=True)
class Built:
    """A cluster with its engine.

    info:   how the engine came about.
    timing: of its calls, where the partition is measured and the engine can run here.
    check:  of its answers; None where engines are not checked.
    """

    extracted: Extracted
    module: EngineModule
    info: BuildInfo
    timing: Timing | None = None
    check: EngineCheck | None = None

    @property
    def from_cache(self) -> bool:
        """Return whether the plan was built before, so that a check of it may be kept."""
        return self.info.cached


@dataclass(frozen=True, slots=True)
class Settled:
    """A partition all of whose clusters are built, in order.

    failures: the nodes that left after each division but the last, because their cluster failed.
    """

    partition: Partition
    built: Sequence[Built]
    failures: Failures = ()


def settle(
    gm: GraphModule,
    target: Target,
    inputs: Sequence[Any] | None = None,
    stores: PlanStores = PlanCache.of,
    failures: Failures = (),
) -> Settled:
    """Divide `gm` and build its clusters; leave out what fails, is wrong or, if measured, loses.

    Args:
        gm: a graph that was normalized.
        inputs: one value for each placeholder, to check and measure with; None makes values up.
        stores: where plans, checks and timings are kept.
        failures: what failed when the same graph was settled before, which is not tried again.

    Raises:
        EngineError, ConversionError: with `on_build_failure="raise"` only.
        EngineError: an engine answers wrongly, with `self_check="raise"` only.
    """
    with explicit():
        return _Settlement(gm, target, inputs, stores).run(failures)


def build_cluster(extracted: Extracted, backend: EngineBackend) -> tuple[EngineModule, BuildInfo]:
    """Build one cluster; return the module that runs it, and how its engine came about.

    Raises:
        EngineError, ConversionError: the cluster does not build.
    """
    (result,) = _build_clusters([extracted], backend, PlanCache.of)
    if not isinstance(result, tuple):
        raise result
    return result


_Result = tuple[EngineModule, BuildInfo] | BuildFailure


def _build_clusters(
    clusters: Sequence[Extracted], backend: EngineBackend, stores: PlanStores
) -> list[_Result]:
    built = build([(one.module, one.cluster.settings) for one in clusters], backend, stores)
    results: list[_Result] = []
    for extracted, result in zip(clusters, built, strict=True):
        if isinstance(result, tuple):
            engine, info = result
            module = EngineModule(extracted.cluster.name, engine, extracted.module)
            results.append((module, info))
        else:
            results.append(result)
    return results


def _given_up(
    failed: Sequence[tuple[Extracted, BuildFailure]],
    built: Sequence[Built],
    wrong: Mapping[Node, Rejection],
) -> dict[Node, Rejection]:
    """Return the nodes of clusters that still fail, or are wrong, after the last round."""
    rejected: dict[Node, Rejection] = {}
    for extracted, error in failed:
        log.warning("%s stays in PyTorch, because it does not build", extracted.cluster.name)
        rejection = Rejection("build_failed", str(error))
        rejected |= dict.fromkeys(extracted.cluster.nodes, rejection)
    for one in built:
        nodes = one.extracted.cluster.nodes
        why = next((wrong[node] for node in nodes if node in wrong), None)
        if why is not None:
            log.warning("%s stays in PyTorch: it answers wrongly", one.extracted.cluster.name)
            rejected |= dict.fromkeys(nodes, why)
    return rejected


class _Settlement:
    def __init__(
        self,
        gm: GraphModule,
        target: Target,
        inputs: Sequence[Any] | None,
        stores: PlanStores,
    ) -> None:
        self._gm, self._target, self._settings = gm, target, target.settings
        self._stores = stores
        self._inputs = inputs
        self._results: dict[Any, _Result] = {}
        self._checks = SelfChecks(gm, target, inputs, stores, self._build_parts)
        self._races = Int8Races(target, stores, self._build_plain)

    def run(self, known: Failures) -> Settled:
        leaving = divide_again(self._gm, self._target, known)
        failures = list(known)
        for number in range(1, _MOST_ROUNDS + 1):
            divided = divide(self._gm, self._target, leaving)
            built, failed = self._build_all(divided)
            found: dict[Node, Rejection] = {}
            if number < _MOST_ROUNDS:
                found = self._culprits(failed, by_name=number <= _MOST_ROUNDS_BY_NAME)
            if not found:
                # Engines of a division that does not last are not worth a check.
                built, wrong = self._checked(built)
                found = dict(wrong) if number < _MOST_ROUNDS else {}
            if not found and number < _MOST_ROUNDS:
                found = self._slower_in_int8(built)
            if not found:
                break
            failures.append({node.name: why for node, why in found.items()})
            leaving |= leave(self._gm, found)
        rejected = _given_up(failed, built, wrong)
        built = [one for one in built if one.extracted.cluster.nodes[0] not in rejected]
        if self._settings.partition == "measured":
            built, slower = self._keep_faster(built)
            rejected |= slower
        return Settled(without(self._gm, divided, rejected), built, failures)

    def _checked(self, built: Sequence[Built]) -> tuple[list[Built], dict[Node, Rejection]]:
        """Return the engines with their checks, and the nodes that make some of them wrong."""
        verdicts = self._checks.of(built)
        wrong: dict[Node, Rejection] = {}
        for one, verdict in zip(built, verdicts, strict=True):
            name = one.extracted.cluster.name
            for node, why in verdict.wrong.items():
                if self._settings.self_check == "raise":
                    raise EngineError(
                        f"{name} answers wrongly: {node.name} = {node.target}: {why.detail}"
                    )
                log.warning("%s: %s leaves for PyTorch", name, node.name)
            wrong |= verdict.wrong
        return [replace(o, check=v.check) for o, v in zip(built, verdicts, strict=True)], wrong

    def _slower_in_int8(self, built: Sequence[Built]) -> dict[Node, Rejection]:
        """Return the quantizers of the clusters that are not faster in int8."""
        racers = self._races.racers(built)
        return self._races.losers(racers, self._values(racers)) if racers else {}

    def _build_plain(self, plain: GraphModule, like: Extracted) -> EngineModule | None:
        """Build the engine of a cluster without its quantizers."""
        (module,) = self._build_parts([replace(like, module=plain)])
        is_timed = isinstance(module, EngineModule) and module.engine is not None
        return module if is_timed else None  # type: ignore[return-value]  # an EngineModule

    def _culprits(
        self, failed: Sequence[tuple[Extracted, BuildFailure]], *, by_name: bool
    ) -> dict[Node, Rejection]:
        """Return the nodes that failed clusters can be built without, and why they fail."""
        if not failed:
            return {}
        culprits = Culprits(self._gm, self._target, self._why_not_built)
        leaving: dict[Node, Rejection] = {}
        for extracted, error in failed:
            if quantizers := not_built(extracted, error):
                log.warning("%s computes in float16", extracted.cluster.name)
                leaving |= quantizers
                continue
            nodes, cause = culprits.of(extracted, error, by_name=by_name)
            if nodes:
                name, every = extracted.cluster.name, len(extracted.cluster.nodes)
                log.warning("%s: %d of %d nodes leave for PyTorch", name, len(nodes), every)
            leaving |= dict.fromkeys(nodes, Rejection("build_failed", str(cause)))
        return leaving

    def _build_all(
        self, divided: Partition
    ) -> tuple[list[Built], list[tuple[Extracted, BuildFailure]]]:
        built: list[Built] = []
        failed: list[tuple[Extracted, BuildFailure]] = []
        clusters = extract_all(self._gm, divided.clusters)
        for extracted, result in zip(clusters, self._build(clusters), strict=True):
            cluster = extracted.cluster
            if not isinstance(result, tuple):
                failed.append((extracted, result))
                continue
            module, info = result
            module.name = cluster.name
            built.append(Built(extracted, module, info))
        return built, failed

    def _build(self, clusters: Sequence[Extracted]) -> list[_Result]:
        """Return the module of each cluster, or why it does not build.

        A cluster that comes back after another division is not built again.
        """
        keys = [(one.cluster.nodes, one.inputs, one.outputs, one.forms) for one in clusters]
        new = {k: one for k, one in zip(keys, clusters, strict=True) if k not in self._results}
        results = _build_clusters(list(new.values()), self._target.backend, self._stores)
        for one, result in zip(new.values(), results, strict=True):
            if not isinstance(result, tuple):
                if self._settings.on_build_failure == "raise":
                    raise result
                log.warning("%s does not build: %s", one.cluster.name, result)
        self._results.update(zip(new, results, strict=True))
        return [self._results[key] for key in keys]

    def _why_not_built(self, settings: Settings, nodes: Sequence[Node]) -> BuildFailure | None:
        part = extract(self._gm, Cluster("part", tuple(nodes), settings))
        (result,) = _build_clusters([part], self._target.backend, self._stores)
        return None if isinstance(result, tuple) else result

    def _build_parts(self, parts: Sequence[Extracted]) -> list[EngineModule | Exception]:
        results = _build_clusters(parts, self._target.backend, self._stores)
        return [one[0] if isinstance(one, tuple) else one for one in results]

    def _keep_faster(self, built: Sequence[Built]) -> tuple[list[Built], dict[Node, Rejection]]:
        """Keep what is faster than PyTorch or in the whitelist; reject the rest."""
        whitelist = Patterns(self._settings.whitelist)
        kept: list[Built] = []
        slower: dict[Node, Rejection] = {}
        for one, timing in zip(built, self._timings(built), strict=True):
            nodes = one.extracted.cluster.nodes
            if timing is None or timing.wins or any(map(whitelist.match, nodes)):
                kept.append(replace(one, timing=timing))
                continue
            detail = f"engine {timing.engine_ms:.3f} ms, PyTorch {timing.pytorch_ms:.3f} ms"
            slower |= dict.fromkeys(nodes, Rejection("slower", detail))
        return kept, slower

    def _timings(self, built: Sequence[Built]) -> list[Timing | None]:
        """Take timings from the cache or a clock; None where an engine cannot run here."""
        cache = self._stores(self._settings, "timing")
        keys = [
            EngineKey.of(
                one.extracted.module, self._target.with_settings(one.extracted.cluster.settings)
            )
            for one in built
        ]
        known = [None if cache is None else cache.get(key) for key in keys]
        missing = [one for one, data in zip(built, known, strict=True) if data is None]
        values = self._values(missing)
        timings: list[Timing | None] = []
        for one, key, data in zip(built, keys, known, strict=True):
            if data is not None:
                timings.append(Timing.from_bytes(data.plan))
            elif one.module.engine is None:
                timings.append(None)
            else:
                timing = measure(one.module, one.extracted.arguments(values))
                timings.append(timing)
                if cache is not None:
                    header = PlanHeader.of(one.extracted.module, self._target.backend)
                    cache.put(key, timing.to_bytes(), header)
        return timings

    def _values(self, built: Sequence[Racer]) -> dict[Node, Any]:
        """Return a value for each node that one of the clusters takes."""
        nodes = list(dict.fromkeys(node for one in built for node in one.extracted.inputs))
        if self._inputs is None:
            return dict(zip(nodes, made_up_values(nodes), strict=True))
        return recorded_values(self._gm, self._inputs, nodes) if nodes else {}
