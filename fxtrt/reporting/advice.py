"""Suggests steps that would bring more of a model into engines, and says what each gains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .groups import cost, total_ms
from .picture import Picture
from .values import CoverageValues, RejectionRow

__all__ = ["Advice", "advise"]

_MOST_ADVICE = 5
_LEAST_FLOPS, _LEAST_TIME = 0.001, 0.01
"""The least share of the model's FLOPs, and of its measured time, that a step must bring."""
_STEPS: dict[str, Callable[[RejectionRow], str]] = {
    "no_converter": lambda row: f"{row.target} needs a converter (@fxtrt.converts registers one)",
    "check": lambda row: f"{row.target} needs a converter that takes this call: {_reason(row)}",
    "opt_in": lambda row: f"whitelist {row.target}",
    "too_small": lambda row: f"whitelist {row.module or row.target}, or lower min_cluster_size",
    "unbounded": lambda row: (
        "set max_growth, or give the dynamic sizes an upper bound (torch._dynamo.mark_dynamic "
        "or torch.export.Dim, with max=...)"
    ),
    "blacklist": lambda row: f"take {row.target} off the blacklist",
    "build_failed": lambda row: (
        f"see why TensorRT does not build this, or set on_build_failure='bisect', which keeps "
        f"engines for all but the nodes that fail: {row.detail}"
    ),
    "capture": lambda row: f"let {row.module or row.target} be captured: {row.detail}",
    "outside": lambda row: (
        f"let {row.module or row.source or row.target} be captured: no graph holds it"
    ),
}
_ALONE = ("too_small", "capture", "outside")
"""Codes whose nodes never join clusters: a small cluster fits into no other, and the picture has no
nodes that were not captured."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A step, and what it would bring into engines.

    joins: groups of clusters, each of which would become one cluster.
    """

    step: str
    nodes: int
    flops: int
    ms: float | None
    joins: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        gains = [f"{self.nodes} node{'s' * (self.nodes != 1)}"]
        if self.flops:
            gains.append(f"{self.flops / 1e9:.2f} GFLOPs")
        if self.ms is not None:
            gains.append(f"{self.ms:.2f} ms")
        joined = "; ".join(" and ".join(names) for names in self.joins)
        return f"{self.step}: {', '.join(gains)}{', and joins ' if joined else ''}{joined}"


def advise(coverage: CoverageValues) -> list[Advice]:
    """Return the five best steps: first those that join clusters, then the costliest nodes.

    A step that joins no clusters must bring a certain share of the FLOPs or of the measured time.
    """
    grouped: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(coverage.rejections):
        if row.code in _STEPS and (row.computes or row.flops):
            grouped[row.code, _STEPS[row.code](row)].append(i)
    time = _time(coverage)
    found = [
        advice
        for (code, step), members in grouped.items()
        if _pays(advice := _advice(coverage, code, step, members), coverage.flops, time)
    ]
    found.sort(key=lambda a: (-len(a.joins), *cost(a.ms, a.flops, a.nodes), a.step))
    return found[:_MOST_ADVICE]


def _pays(advice: Advice, flops: int, time: float) -> bool:
    if advice.joins or (advice.flops and advice.flops >= _LEAST_FLOPS * flops):
        return True
    return advice.ms is not None and advice.ms > 0 and advice.ms >= _LEAST_TIME * time


def _time(coverage: CoverageValues) -> float:
    """Add up the milliseconds of all that was measured."""
    engines = (row.pytorch_ms or row.engine_ms or 0.0 for row in coverage.clusters)
    return sum(engines) + (total_ms(coverage.rejections) or 0.0)


def _advice(coverage: CoverageValues, code: str, step: str, members: Sequence[int]) -> Advice:
    rows = [coverage.rejections[i] for i in members]
    pictures = () if code in _ALONE else coverage.pictures
    joined = (_joined(picture, set(members)) for picture in pictures)
    joins = [tuple(coverage.clusters[i].name for i in group) for group in joined if group]
    nodes = sum(row.calls for row in rows if row.computes)
    # A few nodes cost mostly their calls in PyTorch, and an engine costs a call too.
    ms = None if code == "too_small" else total_ms(rows)
    return Advice(step, nodes, sum(row.flops for row in rows), ms, tuple(joins))


def _reason(row: RejectionRow) -> str:
    """Return the detail without the operator that it begins with."""
    return row.detail.removeprefix(f"{row.target}: ")


def _joined(picture: Picture, rejections: set[int]) -> list[int]:
    """Return the clusters next to these rejected nodes, if all of them together are convex."""
    chosen = [node.rejection in rejections for node in picture.nodes]
    touched = {
        picture.nodes[end].cluster
        for source, user in picture.edges
        for end, other in ((source, user), (user, source))
        if chosen[other]
    } - {None}
    if len(touched) < 2:
        return []
    inside = [
        taken or (node.cluster is not None and node.cluster in touched)
        for taken, node in zip(chosen, picture.nodes, strict=True)
    ]
    return sorted(i for i in touched if i is not None) if _is_convex(inside, picture.edges) else []


def _is_convex(inside: Sequence[bool], edges: Iterable[tuple[int, int]]) -> bool:
    """Return whether no path leaves the nodes and comes back; edges lead to later nodes."""
    left = [False] * len(inside)
    for source, user in sorted(edges, key=lambda edge: edge[1]):
        if inside[user] and left[source]:
            return False
        if not inside[user] and (inside[source] or left[source]):
            left[user] = True
    return True
