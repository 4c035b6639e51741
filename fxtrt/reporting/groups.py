"""Groups rejections that share a code and a reason, costliest first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .values import RejectionRow

__all__ = ["ReasonGroup", "by_reason", "cost", "total_ms"]


@dataclass(frozen=True, slots=True)
class ReasonGroup:
    """The calls that stay in PyTorch for one reason.

    modules: the modules that they come from.
    source:  the first line of the user's code that they come from.
    """

    code: str
    detail: str
    calls: int
    flops: int
    ms: float | None
    modules: tuple[str, ...]
    source: str


def by_reason(rows: Sequence[RejectionRow]) -> list[ReasonGroup]:
    """Group rows by code and reason; sort the groups by time, then FLOPs, then calls."""
    grouped: defaultdict[tuple[str, str], list[RejectionRow]] = defaultdict(list)
    for row in rows:
        grouped[row.code, row.detail].append(row)
    groups = [
        ReasonGroup(
            code,
            detail,
            sum(row.calls for row in members),
            sum(row.flops for row in members),
            total_ms(members),
            tuple(dict.fromkeys(row.module for row in members if row.module)),
            next((row.source for row in members if row.source), ""),
        )
        for (code, detail), members in grouped.items()
    ]
    return sorted(groups, key=lambda g: (*cost(g.ms, g.flops, g.calls), g.code, g.detail))


def total_ms(rows: Sequence[RejectionRow]) -> float | None:
    """Add up the times of the rows that were measured; return None if none was."""
    measured = [row.ms for row in rows if row.ms is not None]
    return sum(measured) if measured else None


def cost(ms: float | None, flops: int, calls: int) -> tuple[float, int, int]:
    """Return a key that sorts the costliest first."""
    return -(ms or 0.0), -flops, -calls
