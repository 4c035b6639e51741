"""Reports what runs where, why, and what it costs, as one Coverage."""

from .coverage import Coverage
from .rows import (
    cluster_row,
    graph_coverage,
    graph_rejection,
    missed_rows,
    outside_rows,
)
from .values import (
    ClusterRow,
    DemotionRow,
    Fallback,
    GateRow,
    GraphBreak,
    GuardRow,
    RejectionRow,
    RuntimeRow,
)

__all__ = [
    "ClusterRow",
    "Coverage",
    "DemotionRow",
    "Fallback",
    "GateRow",
    "GraphBreak",
    "GuardRow",
    "RejectionRow",
    "RuntimeRow",
    "cluster_row",
    "graph_coverage",
    "graph_rejection",
    "missed_rows",
    "outside_rows",
]
