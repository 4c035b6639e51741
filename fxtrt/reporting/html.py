"""Writes a report as one HTML page, with tables and a picture whose modules fold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from os import PathLike
from pathlib import Path
from string import Template
from typing import Any

from tabulate import tabulate

from .advice import advise
from .folding import boxes
from .gate_lines import gate_lines
from .groups import by_reason, cost
from .text import (
    boundary_text,
    build_cells,
    runtime_lines,
    summary,
)
from .values import (
    ClusterRow,
    CoverageValues,
    RejectionRow,
)

__all__ = ["write_html"]

_MOST_ROWS = 1000


def write_html(coverage: CoverageValues, path: str | PathLike[str]) -> None:
    """Write the page; it needs no other file and no network."""
    here = files("fxtrt.reporting")
    page = Template(here.joinpath("page.html").read_text(encoding="utf-8"))
    parts = {
        "summary": escape(summary(coverage)),
        "capture": _list(coverage.capture) if coverage.capture else "",
        "clusters": _clusters(coverage.clusters),
        "reasons": _reasons(coverage),
        "nodes": _nodes(coverage.rejections),
        "breaks": _table(["reason", "at"], [[b.reason, b.source] for b in coverage.graph_breaks]),
        "kept_fp16": _list(coverage.kept_fp16),
        "kept": _list(coverage.kept_fp32),
        "gate": _list(list(gate_lines(coverage.gate))),
        "checks": _list(coverage.checks),
        "runtime": _list(list(runtime_lines(coverage))),
        "advice": _list(advise(coverage)),
        "data": _json(_data(coverage)),
        "dagre": here.joinpath("dagre.min.js").read_text(encoding="utf-8"),
        "script": here.joinpath("page.js").read_text(encoding="utf-8"),
    }
    Path(path).write_text(page.substitute(parts), encoding="utf-8")


def _data(coverage: CoverageValues) -> dict[str, Any]:
    """Return what the picture shows: boxes and edges of each graph, and the texts for hovering."""
    return {
        "graphs": [boxes(picture) for picture in coverage.pictures if picture.nodes],
        "clusters": [f"{row.name}: {row.nodes} nodes, {_giga(row)}" for row in coverage.clusters],
        "rejections": [f"{row.code}: {row.detail}" for row in coverage.rejections],
        "sources": [row.source for row in coverage.rejections],
    }


def _json(value: Any) -> str:
    """Return JSON for a script element, which a `</script>` in a reason must not end."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _clusters(rows: Sequence[ClusterRow]) -> str:
    headers = ["cluster", "modules", "nodes", "FLOPs", "ops", "in", "out", "dtype", "runs on"]
    headers += ["layers", "plan", "built in", "engine ms", "PyTorch ms"]
    cells = [
        [
            row.name,
            row.modules or "(model)",
            row.nodes,
            _giga(row),
            ", ".join(f"{target} ({count})" for target, count in row.ops),
            boundary_text(row.bytes_in, row.inputs),
            boundary_text(row.bytes_out, row.outputs),
            ", ".join(row.dtypes),
            row.runs_on,
            *build_cells(row.build),
            _ms(row.engine_ms),
            _ms(row.pytorch_ms),
        ]
        for row in rows
    ]
    return _table(headers, cells)


def _reasons(coverage: CoverageValues) -> str:
    headers = ["calls", "code", "reason", "FLOPs", "ms", "modules", "first at"]
    cells = [
        [g.calls, g.code, g.detail, _giga(g), _ms(g.ms), ", ".join(g.modules), g.source]
        for g in by_reason(coverage.rejections)
    ]
    return _table(headers, cells)


def _nodes(rows: Sequence[RejectionRow]) -> str:
    ordered = sorted(rows, key=lambda row: cost(row.ms, row.flops, row.calls))[:_MOST_ROWS]
    headers = ["node", "target", "calls", "code", "reason", "module", "source", "FLOPs", "ms"]
    cells = [
        [r.node, r.target, r.calls, r.code, r.detail, r.module, r.source, _giga(r), _ms(r.ms)]
        for r in ordered
    ]
    return _table(headers, cells)


def _table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return "<p>None.</p>"
    # tabulate escapes the cells.
    return str(tabulate(rows, headers=list(headers), tablefmt="html", disable_numparse=True))


def _list(items: Sequence[object]) -> str:
    if not items:
        return "<p>None.</p>"
    return f"<ul>{''.join(f'<li>{escape(str(item))}</li>' for item in items)}</ul>"


def _giga(row: Any) -> str:
    return f"{row.flops / 1e9:.2f} G"


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.2f}"
