"""Checks new engines against PyTorch, and finds the nodes with which a wrong one goes wrong."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch.fx import GraphModule, Node

from ..builder.casts import with_precision
from ..cache.engine_key import EngineKey, node_digests
from ..cache.plan_file import PlanHeader
from ..cache.plan_store import PlanStores
from ..capture.untouched import untouched_modes
from ..engines.target import Target
from ..graph.nodes import is_size, producer
from ..graph.patterns import Patterns
from ..partition.extract import Extracted, extract
from ..partition.partition import Cluster
from ..registry import Rejection
from ..runtime.engine_check import LARGE_LOSS, LARGE_LOSS_OF_INT8, EngineCheck, check_engine
from ..runtime.engine_module import EngineModule
from ..settings import Settings
from .cluster_inputs import made_up_values, recorded_values, visit_values
from .delta_debugging import first_wrong

__all__ = ["BuildParts", "SelfChecks", "Verdict", "checks_engines"]

log = logging.getLogger(__name__)

_FORMAT = 1
"""Rises when what is kept of a check changes its meaning."""

BuildParts = Callable[[Sequence[Extracted]], Sequence["EngineModule | Exception"]]
"""Builds an engine of each part of a cluster, or returns why it does not build."""


class Checkable(Protocol):
    """A cluster with its engine, as in `Built`."""

    @property
    def extracted(self) -> Extracted: ...

    @property
    def module(self) -> EngineModule: ...

    @property
    def from_cache(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of checking an engine.

    check: what was compared; None without a check.
    wrong: the nodes of the cluster that must leave it, with the two values that differ.
    """

    check: EngineCheck | None = None
    wrong: Mapping[Node, Rejection] = field(default_factory=dict)


def checks_engines(target: Target) -> bool:
    """Return whether the engines of a target are checked.

    `reference` runs PyTorch's own kernels, so that it is checked only with "raise".
    """
    how = target.settings.self_check
    return how == "raise" or (how == "auto" and target.backend.plans)


class SelfChecks:
    """Checks the engines of a graph, each once; what was found is kept beside their plans.

    Args:
        gm: the graph that the clusters are of.
        inputs: one value for each placeholder, or None to make values up.
    """

    def __init__(
        self,
        gm: GraphModule,
        target: Target,
        inputs: Sequence[Any] | None,
        stores: PlanStores,
        build: BuildParts,
    ) -> None:
        self._gm, self._target, self._inputs = gm, target, inputs
        self._store = stores(target.settings, "check") if checks_engines(target) else None
        self._build = build
        self._values = "made-up" if inputs is None else "example"
        self._known: dict[EngineModule, Verdict] = {}

    def of(self, built: Sequence[Checkable]) -> list[Verdict]:
        """Return the verdict on each engine."""
        if not checks_engines(self._target):
            return [Verdict() for _ in built]
        new = [one for one in built if one.module not in self._known]
        for one in new:
            found = self._without_running(one)
            if found is not None:
                self._known[one.module] = found
        self._examine([one for one in new if one.module not in self._known])
        return [self._known[one.module] for one in built]

    def _without_running(self, one: Checkable) -> Verdict | None:
        if one.module.engine is None:
            return Verdict(EngineCheck(unchecked="the engine cannot run on this machine"))
        return self._stored(one) if one.from_cache else None

    def _examine(self, new: Sequence[Checkable]) -> None:
        if not new:
            return
        log.info("comparing engines with PyTorch: %d", len(new))

        def visit(number: int, values: Mapping[Node, Any]) -> None:
            one = new[number]
            verdict = self._verdict(one, one.extracted.arguments(values))
            self._known[one.module] = verdict
            self._keep(one, verdict)

        groups = [one.extracted.inputs for one in new]
        if self._inputs is not None:
            visit_values(self._gm, self._inputs, groups, visit)
            return
        for number, nodes in enumerate(groups):
            with untouched_modes():
                torch.manual_seed(0)
                values = made_up_values(nodes)
            visit(number, dict(zip(nodes, values, strict=True)))

    def _verdict(self, one: Checkable, arguments: Sequence[Any]) -> Verdict:
        name, settings = one.extracted.cluster.name, one.extracted.cluster.settings
        try:
            check, problem = self._compared(one.module, arguments, settings)
            if not problem:
                _warn_of_loss(name, check, settings.precision)
                return Verdict(check)
            log.warning("%s answers wrongly: %s", name, problem)
            search = _Search(self, one, arguments, problem)
            return Verdict(check, search.culprits())
        except torch.OutOfMemoryError as error:
            log.warning("%s is not checked, for lack of memory: %s", name, error)
            return Verdict(EngineCheck(self._values, unchecked="there is not enough memory"))

    def _compared(
        self, module: EngineModule, arguments: Sequence[Any], settings: Settings
    ) -> tuple[EngineCheck, str]:
        cast, _ = with_precision(module.fallback, settings)
        return check_engine(module, arguments, cast, settings.precision, self._values)

    def problems(
        self,
        cluster: GraphModule,
        arguments: Sequence[Any],
        parts: Sequence[Sequence[Node]],
        settings: Settings,
    ) -> list[str]:
        """Return what is wrong with the engine of each part of a cluster, or "".

        A part that does not build says nothing.
        """
        extracted = [extract(cluster, Cluster("part", tuple(part), settings)) for part in parts]
        modules = self._build(extracted)
        wanted = {node for part in extracted for node in part.inputs}
        values = recorded_values(cluster, arguments, wanted)
        found = []
        for part, module in zip(extracted, modules, strict=True):
            if isinstance(module, Exception) or module.engine is None:
                found.append("")
            else:
                found.append(self._compared(module, part.arguments(values), settings)[1])
        return found

    def _key(self, one: Checkable) -> EngineKey:
        own = self._target.with_settings(one.extracted.cluster.settings)
        return EngineKey.of(one.extracted.module, own)

    def _keep(self, one: Checkable, verdict: Verdict) -> None:
        if self._store is None or verdict.check is None or verdict.check.unchecked:
            return
        digests = _digests(one.extracted)
        wrong = {
            digests[name]: verdict.wrong[node].detail
            for name, node in one.extracted.originals.items()
            if node in verdict.wrong
        }
        data = {"format": _FORMAT, "check": asdict(verdict.check), "wrong": wrong}
        header = PlanHeader.of(one.extracted.module, self._target.backend)
        self._store.put(self._key(one), json.dumps(data).encode(), header)

    def _stored(self, one: Checkable) -> Verdict | None:
        """Return what was found before, or None where it does not count.

        Made-up values do not count where there are examples.
        """
        stored = None if self._store is None else self._store.get(self._key(one))
        if stored is None:
            return None
        data = json.loads(stored.plan)
        if data["format"] != _FORMAT:
            return None
        check = EngineCheck(**data["check"])
        if check.values != "example" and self._inputs is not None:
            return None
        digests = _digests(one.extracted)
        wrong = {
            node: Rejection("wrong", data["wrong"][digests[name]])
            for name, node in one.extracted.originals.items()
            if digests[name] in data["wrong"]
        }
        return Verdict(check, wrong)


class _Search:
    """Finds the nodes to blame for an engine that answers wrongly."""

    def __init__(
        self, checks: SelfChecks, one: Checkable, arguments: Sequence[Any], problem: str
    ) -> None:
        self._checks, self._one, self._arguments = checks, one, arguments
        self._cluster = one.module.fallback
        self._problem = problem

    def culprits(self) -> dict[Node, Rejection]:
        """Return the first node with which a prefix of the cluster is wrong, and others like it.

        Other calls of the same operator leave too if they are wrong alone, as the first one is.
        """
        nodes = self._cluster.graph.nodes
        calls = [node for node in nodes if node.op == "call_function" and not is_size(node)]
        messages: dict[Node, str] = {calls[-1]: self._problem}

        def is_wrong(prefix: Sequence[Node]) -> bool:
            messages[prefix[-1]] = self._problems([prefix])[0]
            return bool(messages[prefix[-1]])

        found = first_wrong(calls, is_wrong)
        unit = _with_items(found)
        blamed = {found: messages[max(unit, key=calls.index)]} | self._alike(found, calls)
        return self._originals(blamed)

    def _problems(self, parts: Sequence[Sequence[Node]]) -> list[str]:
        settings = self._one.extracted.cluster.settings
        return self._checks.problems(self._cluster, self._arguments, parts, settings)

    def _alike(self, found: Node, calls: Sequence[Node]) -> dict[Node, str]:
        alike = [node for node in calls if node.target == found.target and node is not found]
        if not alike or not self._problems([_with_items(found)])[0]:
            return {}
        problems = self._problems([_with_items(node) for node in alike])
        return {node: why for node, why in zip(alike, problems, strict=True) if why}

    def _originals(self, blamed: Mapping[Node, str]) -> dict[Node, Rejection]:
        """Return the nodes of the graph; a cast at the boundary stands for what it casts."""
        originals = self._one.extracted.originals
        wrong: dict[Node, Rejection] = {}
        for node, message in blamed.items():
            near = [node, *node.all_input_nodes, *node.users]
            original = next(originals[one.name] for one in near if one.name in originals)
            call = producer(original)
            wrong[call] = Rejection("wrong", message)
        nodes = self._one.extracted.cluster.nodes
        return {node: wrong[producer(node)] for node in nodes if producer(node) in wrong}


def _with_items(call: Node) -> list[Node]:
    """Return a call with the `getitem`s that read it."""
    return [call, *(user for user in call.users if producer(user) is call)]


def _digests(extracted: Extracted) -> dict[str, str]:
    keep = Patterns(extracted.cluster.settings.keep_fp32)
    return {node.name: digest for node, digest in node_digests(extracted.module, keep).items()}


def _warn_of_loss(name: str, check: EngineCheck, precision: str) -> None:
    most, option = LARGE_LOSS, "keep_fp32"
    if precision == "int8":
        most, option = LARGE_LOSS_OF_INT8, "keep_fp16"
    if check.loss is not None and check.loss > most:
        log.warning(
            "%s: its precision moves the answers by %.1e of their magnitude; `%s` names what stays "
            "as it is",
            name,
            check.loss,
            option,
        )
