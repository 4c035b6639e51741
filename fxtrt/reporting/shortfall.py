"""Says in one sentence that engines do less of the work than they should, and why."""

from __future__ import annotations

from collections import defaultdict

from .values import CoverageValues, RejectionRow

__all__ = ["ENOUGH", "shortfall"]

ENOUGH = 0.9
"""The share of the FLOPs that engines should do."""
_CHOSEN = {"blacklist", "fuel", "slower"}
"""The codes of what is in PyTorch because the user or a measurement chose so."""
_MOST_REASONS = 3
_LEAST_SHARE = 0.01
"""The share of the FLOPs below which a reason is not named, unless it is the greatest."""
_MOST_LETTERS = 200


def shortfall(coverage: CoverageValues) -> str | None:
    """Return the share of the FLOPs in engines and the main reasons, or None if it is enough.

    What is in PyTorch by choice does not count as missing. A model without FLOPs has no share.
    """
    missing = sum(row.flops for row in coverage.rejections if row.code not in _CHOSEN)
    if missing <= (1 - ENOUGH) * coverage.flops:
        return None
    rows: defaultdict[str, list[RejectionRow]] = defaultdict(list)
    for row in coverage.rejections:
        if row.flops:
            rows[row.code].append(row)
    ordered = sorted(rows.values(), key=lambda group: (-_flops(group), group[0].code))
    reasons = [
        _reason(group, coverage.flops)
        for i, group in enumerate(ordered[:_MOST_REASONS])
        if i == 0 or _flops(group) >= _LEAST_SHARE * coverage.flops
    ]
    return (
        f"engines run {coverage.flops_share:.1%} of {coverage.flops / 1e9:.3g} GFLOPs; "
        f"PyTorch runs {'; '.join(reasons)}. fxtrt.report(...) lists all"
    )


def _reason(group: list[RejectionRow], flops: int) -> str:
    """Describe the rows of one code by the one with the most FLOPs."""
    worst = max(group, key=lambda row: row.flops)
    detail = worst.detail
    if len(detail) > _MOST_LETTERS:
        detail = f"{detail[:_MOST_LETTERS]} ..."
    where = worst.module or worst.node
    return (
        f"{_flops(group) / flops:.1%} [{worst.code}], such as {worst.target} in {where}: {detail}"
    )


def _flops(group: list[RejectionRow]) -> int:
    return sum(row.flops for row in group)
