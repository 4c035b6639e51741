"""Writes a report as tables of GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from .advice import advise
from .gate_lines import gate_lines
from .groups import by_reason
from .text import (
    boundary_text,
    build_cells,
    runtime_lines,
    summary,
)
from .values import ClusterRow, CoverageValues

__all__ = ["markdown"]


def markdown(coverage: CoverageValues) -> str:
    """Return the whole report; every cluster, reason and graph break has a row."""
    parts = [f"**{summary(coverage)}**"]
    if coverage.capture:
        parts.append(_list(coverage.capture))
    if coverage.clusters:
        headers = ["cluster", "modules", "nodes", "GFLOPs", "ops", "in", "out", "dtype"]
        headers += ["engine", "layers", "plan", "built in", "engine ms", "PyTorch ms"]
        parts.append(_table(headers, [_cluster(row) for row in coverage.clusters]))
    if coverage.kept_fp16:
        parts += ["## Kept in float16", _list(coverage.kept_fp16)]
    if coverage.kept_fp32:
        parts += ["## Kept in float32", _list(coverage.kept_fp32)]
    if coverage.gate:
        parts += ["## Accuracy gate", _list(gate_lines(coverage.gate))]
    if coverage.checks:
        parts += ["## Compared with PyTorch", _list(coverage.checks)]
    if groups := by_reason(coverage.rejections):
        headers = ["calls", "code", "reason", "GFLOPs", "ms", "modules", "first at"]
        rows = [
            [g.calls, g.code, g.detail, _giga(g.flops), _ms(g.ms), ", ".join(g.modules), g.source]
            for g in groups
        ]
        parts += ["## In PyTorch", _table(headers, rows)]
    if coverage.graph_breaks:
        rows = [[found.reason, found.source] for found in coverage.graph_breaks]
        parts += ["## Graph breaks", _table(["reason", "at"], rows)]
    if coverage.runtime or coverage.guards:
        parts += ["## While serving", _list(runtime_lines(coverage))]
    if advice := advise(coverage):
        parts += ["## What to whitelist or write next", _list(advice)]
    return "\n\n".join(parts) + "\n"


def _list(items: Iterable[object]) -> str:
    return "\n".join(f"* {item}" for item in items)


def _cluster(row: ClusterRow) -> list[Any]:
    return [
        row.name,
        row.modules or "(model)",
        row.nodes,
        _giga(row.flops),
        ", ".join(f"{target} ×{count}" for target, count in row.ops),  # noqa: RUF001  # a product
        boundary_text(row.bytes_in, row.inputs),
        boundary_text(row.bytes_out, row.outputs),
        ", ".join(row.dtypes),
        row.engine,
        *build_cells(row.build),
        _ms(row.engine_ms),
        _ms(row.pytorch_ms),
    ]


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(cells, headers=list(headers), tablefmt="github", disable_numparse=True)


def _giga(flops: int) -> str:
    return f"{flops / 1e9:.2f}"


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.2f}"
