"""Writes a report as plain text for a terminal 100 columns wide."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tabulate import tabulate

from ..builder.build import BuildInfo
from .advice import advise
from .gate_lines import gate_lines
from .groups import ReasonGroup, by_reason
from .values import ClusterRow, CoverageValues

__all__ = ["boundary_text", "build_cells", "bytes_text", "runtime_lines", "summary", "text"]

_LINES = 3
"""The most lines of a reason that are shown."""
_MOST_ROWS = 20


def text(coverage: CoverageValues) -> str:
    """Return the whole report."""
    lines = [*textwrap.wrap(summary(coverage), 100), *_items(coverage.capture)]
    if coverage.clusters:
        engines = dict.fromkeys(f"{row.engine}: {row.runs_on}" for row in coverage.clusters)
        lines += ["", _clusters(coverage.clusters), "", *engines]
    if coverage.kept_fp16:
        lines += ["", "Kept in float16:", *_items(coverage.kept_fp16)]
    if coverage.kept_fp32:
        lines += ["", "Kept in float32:", *_items(coverage.kept_fp32)]
    if coverage.gate:
        lines += ["", "Accuracy gate:", *_items(gate_lines(coverage.gate, _MOST_ROWS))]
    if coverage.checks:
        lines += ["", "Compared with PyTorch:", *_items(coverage.checks)]
    if coverage.rejections:
        lines += ["", "In PyTorch:", _rejections(by_reason(coverage.rejections))]
    if coverage.graph_breaks:
        lines += ["", "Graph breaks:", _breaks(coverage)]
    if coverage.runtime or coverage.guards:
        lines += ["", "While serving:", *_items(runtime_lines(coverage))]
    if advice := advise(coverage):
        lines += ["", "What to whitelist or write next:", *_items(advice)]
    return "\n".join(lines)


def _items(items: Iterable[object]) -> Iterator[str]:
    for item in items:
        yield from textwrap.wrap(str(item), 98, initial_indent="* ", subsequent_indent="  ")


def summary(coverage: CoverageValues) -> str:
    """Summarize engines, FLOPs, nodes and cuts, and calls if some did not run as compiled."""
    return "; ".join([_compiled(coverage), *_calls(coverage)])


def _compiled(coverage: CoverageValues) -> str:
    count = len(coverage.clusters)
    line = (
        f"{count} engine{'s' * (count != 1)}: {coverage.flops_share:.1%} of the FLOPs, "
        f"{coverage.converted} of {coverage.nodes} compute nodes"
    )
    if coverage.int8:
        line += f" ({coverage.int8} in int8)"
    if coverage.cuts_before_repair != coverage.cuts:
        return f"{line}, {coverage.cuts} cuts ({coverage.cuts_before_repair} before repair)"
    return f"{line}, {coverage.cuts} cut{'s' * (coverage.cuts != 1)}"


def _calls(coverage: CoverageValues) -> Iterator[str]:
    called = [row for row in coverage.guards if row.calls]
    if any(row.compiled < row.calls for row in called):
        name = "calls" if len(called) == 1 else "calls of compiled modules"
        yield _share(sum(r.compiled for r in called), sum(r.calls for r in called), name)


def _share(compiled: int, calls: int, name: str) -> str:
    return f"{compiled} of {calls} {name} ran as compiled ({compiled / calls:.1%})"


def runtime_lines(coverage: CoverageValues) -> Iterator[str]:
    """Yield the lines about serving.

    There is one for each module that was called and for each reason of its calls in PyTorch, then
    for each set of slots, its CUDA graphs, and the clusters that fell back.
    """
    for row in coverage.guards:
        if row.calls:
            share = _share(row.compiled, row.calls, "calls")
            yield f"{row.module}: {share}" if row.module else share
        yield from (f"{calls} in PyTorch: {reason}" for reason, calls in row.reasons)
    for line, count in Counter(_runtime_lines(coverage)).items():
        yield line if count == 1 else f"{line}, {count} times"


def _runtime_lines(coverage: CoverageValues) -> Iterator[str]:
    for row in coverage.runtime:
        memory = ""
        if row.scratch_bytes:
            together = bytes_text(row.slots * row.scratch_bytes)
            memory = f", with up to {bytes_text(row.scratch_bytes)} of scratch memory each: "
            memory += f"{together} ({bytes_text(row.taken_bytes)} taken), "
            memory += f"besides {bytes_text(row.plan_bytes)} of plans"
        yield f"{row.slots} slots ({row.made} made){memory}"
        if row.cuda_graphs:
            memory = f", in {bytes_text(row.graph_bytes)}" if row.graph_bytes else ""
            yield f"{row.recorded} CUDA graphs recorded{memory}"
        yield from (f"in no CUDA graph of the whole: {reason}" for reason in row.unrecorded)
        for fallback in row.fallbacks:
            yield f"{fallback.cluster} ran {fallback.calls} times in PyTorch: {fallback.reason}"


def bytes_text(count: int) -> str:
    """Write a number of bytes in KiB or MiB."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**18 else f"{count / 2**10:.1f} KiB"


def boundary_text(count: int, tensors: Sequence[str]) -> str:
    """Write the bytes that cross a boundary, and the forms of its tensors as "2 float16"."""
    counts = Counter(tensor.rpartition(": ")[2] for tensor in tensors)
    return ", ".join([bytes_text(count), *(f"{n} {form}" for form, n in counts.items())])


def _clusters(rows: Sequence[ClusterRow]) -> str:
    headers = ["#", "module", "nodes", "GFLOPs", "in", "out"]
    headers += ["layers", "plan", "built in"]
    timed = any(row.engine_ms is not None or row.pytorch_ms is not None for row in rows)
    if timed:
        headers = [*headers[:4], "engine", "PyTorch", *headers[6:]]
    table = [
        [
            row.name.removeprefix("cluster_"),
            _shorten(row.modules or "(model)", 19),
            row.nodes,
            f"{row.flops / 1e9:.2f}",
            *(_times(row) if timed else (bytes_text(row.bytes_in), bytes_text(row.bytes_out))),
            *build_cells(row.build),
        ]
        for row in rows
    ]
    return tabulate(table, headers=headers, disable_numparse=True)


def _times(row: ClusterRow) -> list[str]:
    return ["" if ms is None else f"{ms:.2f} ms" for ms in (row.engine_ms, row.pytorch_ms)]


def build_cells(build: BuildInfo | None) -> list[str]:
    """Return the layers, the plan's size and the time of a build."""
    if build is None:
        return ["", "", "not built"]
    return [
        "" if build.layers is None else str(build.layers),
        "" if build.plan_bytes is None else bytes_text(build.plan_bytes),
        "from cache" if build.cached else f"{build.seconds:.2f} s",
    ]


def _rejections(groups: Sequence[ReasonGroup]) -> str:
    timed = any(group.ms is not None for group in groups)
    reason_width, source_width = (38, 18) if timed else (40, 24)
    table = [
        [
            group.calls,
            group.code,
            _folded(group.detail, reason_width),
            f"{group.flops / 1e9:.2f}",
            *([] if not timed else ["" if group.ms is None else f"{group.ms:.2f}"]),
            _shorten(group.source, source_width),
        ]
        for group in groups[:_MOST_ROWS]
    ]
    headers = ["calls", "code", "reason", "GFLOPs", *(["ms"] * timed), "first at"]
    shown = tabulate(table, headers=headers, disable_numparse=True)
    hidden = sum(group.calls for group in groups[_MOST_ROWS:])
    return shown + (f"\n... and {hidden} calls for other reasons" if hidden else "")


def _breaks(coverage: CoverageValues) -> str:
    counted = Counter(coverage.graph_breaks)
    table = [
        [count, _shorten(found.reason, 55), _shorten(found.source, 34)]
        for found, count in counted.most_common()
    ]
    return tabulate(table, headers=["times", "reason", "at"], disable_numparse=True)


def _folded(detail: str, width: int) -> str:
    return "\n".join(textwrap.wrap(_shorten(detail, _LINES * width), width))


def _shorten(line: str, width: int) -> str:
    line = " ".join(line.split())
    return line if len(line) <= width else line[: width - 3] + "..."
