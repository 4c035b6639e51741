"""Write how a model passed its accuracy gate as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .values import DemotionRow, GateRow

__all__ = ["gate_lines"]


def gate_lines(rows: Sequence[GateRow], most_demotions: int | None = None) -> Iterator[str]:
    """Yield a line about each gate, and one about each demotion, those that win most first.

    Args:
        most_demotions: how many lines of demotions there are for each gate; None yields all.
    """
    for row in rows:
        yield _gate(row)
        if row.demotions:
            yield _search(row)
        ordered = sorted(row.demotions, key=lambda one: -(one.wins or 0.0))
        yield from map(_demotion, ordered[:most_demotions])
        if hidden := len(ordered[most_demotions:]) if most_demotions is not None else 0:
            yield f"... and {hidden} more demotions"


def _gate(row: GateRow) -> str:
    loss = row.loss_simulated if row.loss is None else row.loss
    how = "simulated, since this machine cannot run the engines" if row.loss is None else "engines"
    images = f"{row.images} image{'s' * (row.images != 1)}"
    return (
        f"{row.metric} over {images}: {row.baseline - loss:.4g} of {row.baseline:.4g}, which loses "
        f"{loss:.2g} ({how}), {row.most_loss:.2g} is allowed"
    )


def _search(row: GateRow) -> str:
    before = "no number" if row.loss_before is None else f"a loss of {row.loss_before:.2g}"
    cost = "" if row.costs_ms is None else f"; they cost {row.costs_ms:.3f} ms"
    few = "" if row.minimal else "; the search ended early, so fewer may do"
    return (
        f"without its {len(row.demotions)} demotions: {before}; found by {row.runs} simulated "
        f"runs, built {row.builds} times{cost}{few}"
    )


def _demotion(row: DemotionRow) -> str:
    parts = [f"{row.entry} ({row.target}): {row.before} -> {row.after} by {row.setting}"]
    parts.append(f"{row.flops / 1e9:.3g} GFLOPs")
    if row.wins is not None:
        parts.append(f"wins {row.wins:.2g}")
    if row.error is not None:
        parts.append(f"alone in {row.before} its error is {row.error:.2g} of its result")
    return ", ".join(parts)
