"""Compares two reports on one model."""

from __future__ import annotations

from collections import Counter

from tabulate import tabulate

from .coverage import Coverage
from .groups import by_reason

__all__ = ["diff"]

_MOST_MOVED = 20


def diff(before: Coverage, after: Coverage) -> str:
    """Return the changes as text: totals, clusters, reasons, and nodes that moved."""
    sections = [
        _totals(before, after),
        _clusters(before, after),
        _reasons("New reasons", after, before),
        _reasons("Reasons that are gone", before, after),
        _moved(before, after),
    ]
    return "\n\n".join(filter(None, sections)) or "Nothing changed."


def _totals(before: Coverage, after: Coverage) -> str:
    rows = [
        ("clusters", len(before.clusters), len(after.clusters)),
        ("share of the FLOPs", f"{before.flops_share:.1%}", f"{after.flops_share:.1%}"),
        ("GFLOPs", f"{before.flops / 1e9:.2f}", f"{after.flops / 1e9:.2f}"),
        ("compute nodes in engines", before.converted, after.converted),
        ("compute nodes", before.nodes, after.nodes),
        ("cuts", before.cuts, after.cuts),
        ("graph breaks", len(before.graph_breaks), len(after.graph_breaks)),
    ]
    changed = [row for row in rows if row[1] != row[2]]
    if not changed:
        return ""
    return tabulate(changed, headers=["", "before", "after"], disable_numparse=True)


def _clusters(before: Coverage, after: Coverage) -> str:
    """Compare clusters by their contents, because their names only number them."""
    old, new = (
        Counter((row.modules or "(model)", row.nodes, row.flops) for row in coverage.clusters)
        for coverage in (before, after)
    )
    lines = [
        f"{sign} {module}: {nodes} nodes, {flops / 1e9:.2f} GFLOPs"
        for sign, counted in (("-", old - new), ("+", new - old))
        for module, nodes, flops in counted.elements()
    ]
    return "\n".join(["Clusters:", *lines]) if lines else ""


def _reasons(title: str, here: Coverage, there: Coverage) -> str:
    known = {(group.code, group.detail) for group in by_reason(there.rejections)}
    lines = [
        f"  {group.calls} nodes, {group.code}: {group.detail}"
        for group in by_reason(here.rejections)
        if (group.code, group.detail) not in known
    ]
    return "\n".join([f"{title}:", *lines]) if lines else ""


def _moved(before: Coverage, after: Coverage) -> str:
    old, new = _places(before), _places(after)
    lines = [
        f"  {name[2]} ({name[1] or 'model'}): {old[name]} -> {new[name]}"
        for name in old
        if name in new and old[name] != new[name]
    ]
    if not lines:
        return ""
    hidden = len(lines) - _MOST_MOVED
    more = [f"  ... and {hidden} more"] if hidden > 0 else []
    return "\n".join(["Nodes that moved:", *lines[:_MOST_MOVED], *more])


def _places(coverage: Coverage) -> dict[tuple[int, str, str], str]:
    """Return where each node runs, by the graph's index, the module and the node's name."""
    places = {}
    for i, picture in enumerate(coverage.pictures):
        for node in picture.nodes:
            if node.cluster is not None:
                places[i, node.module, node.name] = "engine"
            elif node.rejection is not None:
                places[i, node.module, node.name] = coverage.rejections[node.rejection].code
    return places
