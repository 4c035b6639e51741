"""Turns a Coverage's rejections into what to whitelist or write next, and what that would bring."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .coverage import Coverage, RejectionRow
from .groups import cost, total_ms
from .picture import Picture

__all__ = ["Advice", "advise"]

_MOST_ADVICE = 5
_STEPS: dict[str, Callable[[RejectionRow], str]] = {
    "no_converter": lambda row: f"write a converter for {row.target} (@fxtrt.converts)",
    "opt_in": lambda row: f"whitelist {row.target}",
    "too_small": lambda row: f"whitelist {row.module or row.target}, or lower min_cluster_size",
    "unbounded": lambda row: (
        "give the dynamic sizes an upper bound (torch._dynamo.mark_dynamic "
        "or torch.export.Dim, with max=...)"
    ),
    "check": lambda row: f"call {row.target} so that its converter takes it: {row.detail}",
    "blacklist": lambda row: f"take {row.target} off the blacklist",
    "build_failed": lambda row: f"see why TensorRT does not build this: {row.detail}",
    "capture": lambda row: f"let {row.module or row.target} be captured: {row.detail}",
    "outside": lambda row: f"keep {row.module or row.source or row.target} in a graph",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """One step, and what it would bring.

    joins: the groups of clusters that it would make one each.
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


def advise(coverage: Coverage) -> list[Advice]:
    """The steps that bring most, at most five: those that join clusters first, then by cost."""
    grouped: defaultdict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(coverage.rejections):
        if row.code in _STEPS and (row.computes or row.flops):
            grouped[_STEPS[row.code](row)].append(i)
    found = [_advice(coverage, step, members) for step, members in grouped.items()]
    found.sort(key=lambda a: (-len(a.joins), *cost(a.ms, a.flops, a.nodes), a.step))
    return found[:_MOST_ADVICE]


def _advice(coverage: Coverage, step: str, members: Sequence[int]) -> Advice:
    rows = [coverage.rejections[i] for i in members]
    joined = (_joined(picture, set(members)) for picture in coverage.pictures)
    joins = [tuple(coverage.clusters[i].name for i in group) for group in joined if group]
    nodes = sum(row.calls for row in rows if row.computes)
    return Advice(step, nodes, sum(row.flops for row in rows), total_ms(rows), tuple(joins))


def _joined(picture: Picture, rejections: set[int]) -> list[int]:
    """The clusters that these rejected nodes touch, where all of them together are convex."""
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
    """Whether no path leaves the nodes and comes back; edges lead from earlier to later nodes."""
    left = [False] * len(inside)
    for source, user in sorted(edges, key=lambda edge: edge[1]):
        if inside[user] and left[source]:
            return False
        if not inside[user] and (inside[source] or left[source]):
            left[user] = True
    return True
