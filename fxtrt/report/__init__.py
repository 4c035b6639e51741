"""Says what runs where, why, and what it costs: settled plans become one Coverage."""

from .coverage import ClusterRow, Coverage, Fallback, GraphBreak, GuardRow, RejectionRow, RuntimeRow
from .rows import cluster_row, graph_coverage, graph_rejection, outside_rows

__all__ = [
    "ClusterRow",
    "Coverage",
    "Fallback",
    "GraphBreak",
    "GuardRow",
    "RejectionRow",
    "RuntimeRow",
    "cluster_row",
    "graph_coverage",
    "graph_rejection",
    "outside_rows",
]
