"""Finds the clusters that int8 does not make faster, or that do not build in int8."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch.fx import GraphModule, Node

from ..cache.engine_key import EngineKey
from ..cache.plan_file import PlanHeader
from ..cache.plan_store import PlanStores
from ..engines.target import Target
from ..graph.fake_quantize import drop_quantizers, is_quantizer
from ..partition.extract import Extracted
from ..registry import Rejection
from ..runtime.engine_module import EngineModule
from ..runtime.timing import Race, race

__all__ = ["Int8Races", "leave", "not_built", "races_int8"]

log = logging.getLogger(__name__)

_SLOWER, _NOT_BUILT = "int8_slower", "int8_not_built"
"""The codes of quantizers that left: float16 is as fast, or int8 does not build."""

Build = Callable[[GraphModule, Extracted], EngineModule | None]
"""Builds the engine of a cluster's graph without quantizers; None where it cannot be timed."""


def races_int8(target: Target) -> bool:
    """Return whether clusters in int8 are timed: where engines have plans, unless turned off."""
    return target.settings.int8_if_faster and target.backend.plans


class Racer(Protocol):
    """A cluster with its engine, as in `Built`."""

    @property
    def extracted(self) -> Extracted: ...

    @property
    def module(self) -> EngineModule: ...


class Int8Races:
    """Times each cluster once; the times are kept beside its plan."""

    def __init__(self, target: Target, stores: PlanStores, build: Build) -> None:
        self._target, self._build = target, build
        self._wanted = races_int8(target)
        self._store = stores(target.settings, "race") if self._wanted else None
        self._won: set[EngineModule] = set()

    def racers(self, built: Sequence[Racer]) -> list[Racer]:
        """Return those of the clusters that compute in int8 and were not timed yet."""
        return [
            one
            for one in built
            if self._wanted
            and one.module.engine is not None
            and one.module not in self._won
            and _quantizers(one.extracted)
        ]

    def losers(self, racers: Sequence[Racer], values: Mapping[Node, Any]) -> dict[Node, Rejection]:
        """Return the quantizers of the clusters that are not faster in int8, and why they leave.

        Args:
            racers: what `racers` returned.
            values: of the inputs of these clusters.
        """
        found: dict[Node, Rejection] = {}
        for one in racers:
            times = self._times(one, values)
            if times is None or times.int8_ms < times.fp16_ms:
                self._won.add(one.module)
                continue
            why = f"int8 is not faster: {times.int8_ms:.3f} ms, fp16 {times.fp16_ms:.3f} ms"
            log.info("%s stays in float16: %s", one.extracted.cluster.name, why)
            found |= dict.fromkeys(_quantizers(one.extracted), Rejection(_SLOWER, why))
        return found

    def _times(self, one: Racer, values: Mapping[Node, Any]) -> Race | None:
        settings = one.extracted.cluster.settings
        key = EngineKey.of(one.extracted.module, self._target.with_settings(settings))
        stored = None if self._store is None else self._store.get(key)
        if stored is not None:
            return Race.from_bytes(stored.plan)
        other = self._build(without_quantizers(one.extracted.module), one.extracted)
        if other is None:
            return None
        times = race(one.module, other, one.extracted.arguments(values))
        if self._store is not None:
            header = PlanHeader.of(one.extracted.module, self._target.backend)
            self._store.put(key, times.to_bytes(), header)
        return times


def without_quantizers(module: GraphModule) -> GraphModule:
    """Return a cluster's graph, with the same weights, that computes in float16."""
    plain = GraphModule(module, module.graph.__deepcopy__({}))
    drop_quantizers(plain, {node: "" for node in plain.graph.nodes if is_quantizer(node)})
    return plain


def not_built(extracted: Extracted, error: Exception) -> dict[Node, Rejection]:
    """Return the quantizers of a cluster that does not build, and why they leave.

    Not every engine has kernels for int8: those of TensorRT-RTX 1.4 have none for convolutions.
    """
    why = f"it does not build in int8: {error}"
    return dict.fromkeys(_quantizers(extracted), Rejection(_NOT_BUILT, why))


def leave(gm: GraphModule, reasons: Mapping[Node, Rejection]) -> dict[Node, Rejection]:
    """Drop the quantizers among some nodes from `gm`; return the others, which go to PyTorch."""
    dropped = {n: why.detail for n, why in reasons.items() if why.code in (_SLOWER, _NOT_BUILT)}
    drop_quantizers(gm, dropped)
    return {node: why for node, why in reasons.items() if node not in dropped}


def _quantizers(extracted: Extracted) -> list[Node]:
    """Return the quantizers that the settings of a cluster asked for.

    Those of a model that was quantized before are part of what it computes.
    """
    if extracted.cluster.settings.precision != "int8":
        return []
    return list(filter(is_quantizer, extracted.cluster.nodes))
