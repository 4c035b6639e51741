"""Says what runs where, why, and what it costs: settled plans become one Coverage."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tabulate import tabulate
from torch.fx import GraphModule, Node

from .build import BuildInfo
from .engines.base import EngineBackend
from .flops import flops
from .partition import Cluster, computes
from .registry import Rejection
from .source import module_path, shared_path, source_line

__all__ = [
    "ClusterRow",
    "Coverage",
    "RejectionRow",
    "cluster_row",
    "graph_rejection",
    "rejection_row",
]

_WIDTH, _LINES = 64, 3
"""Of a reason: longer ones are folded, then cut."""
_MOST_REASONS = 20


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster.

    modules: the path that all its nodes lie under, or the top modules that they come from.
    engine:  the name of its backend; `runs_on` says what that is on this machine.
    build:   None where nothing was built (a report before compiling).
    """

    name: str
    modules: str
    nodes: int
    flops: int
    engine: str
    runs_on: str
    build: BuildInfo | None


@dataclass(frozen=True, slots=True)
class RejectionRow:
    """A node, or a part of the model that was never captured, that runs in PyTorch."""

    node: str
    target: str
    code: str
    detail: str
    module: str
    source: str
    flops: int
    computes: bool

    def with_flops(self, count: int) -> RejectionRow:
        return replace(self, flops=count)


@dataclass(frozen=True, slots=True)
class Coverage:
    """What runs where: of one graph, or of all graphs of a model.

    clusters:     what runs in engines.
    rejections:   what runs in PyTorch, and why.
    graph_breaks: Dynamo's reasons for leaving the graph, in order.
    """

    clusters: tuple[ClusterRow, ...] = ()
    rejections: tuple[RejectionRow, ...] = ()
    graph_breaks: tuple[str, ...] = ()

    @property
    def nodes(self) -> int:
        """The compute nodes that were seen; views, casts and sizes do not count."""
        return self.converted + sum(row.computes for row in self.rejections)

    @property
    def converted(self) -> int:
        """The compute nodes that run in engines."""
        return sum(row.nodes for row in self.clusters)

    @property
    def flops_share(self) -> float:
        """The share (0..1) of the counted floating-point operations that engines do."""
        inside = sum(row.flops for row in self.clusters)
        total = inside + sum(row.flops for row in self.rejections)
        return inside / total if total else 0.0

    @classmethod
    def total(cls, parts: Sequence[Coverage]) -> Coverage:
        """The coverage of several graphs together; clusters are numbered through."""
        clusters = [row for part in parts for row in part.clusters]
        numbered = tuple(replace(row, name=f"cluster_{i}") for i, row in enumerate(clusters))
        return cls(
            numbered,
            tuple(row for part in parts for row in part.rejections),
            tuple(reason for part in parts for reason in part.graph_breaks),
        )

    def __str__(self) -> str:
        lines = [
            f"{len(self.clusters)} engine{'s' * (len(self.clusters) != 1)}: "
            f"{self.flops_share:.1%} of the FLOPs, {self.converted} of {self.nodes} compute nodes"
        ]
        if self.clusters:
            engines = dict.fromkeys(f"{row.engine}: {row.runs_on}" for row in self.clusters)
            lines += ["", _clusters_table(self.clusters), "", *engines]
        if self.rejections:
            lines += ["", "In PyTorch:", _rejections_table(self.rejections)]
        if self.graph_breaks:
            lines += ["", "Graph breaks:", _breaks_table(self.graph_breaks)]
        return "\n".join(lines)


def cluster_row(cluster: Cluster, backend: EngineBackend, build: BuildInfo | None) -> ClusterRow:
    """The row of a cluster that an engine runs."""
    return ClusterRow(
        name=cluster.name,
        modules=shared_path(map(module_path, cluster.nodes)),
        nodes=sum(map(computes, cluster.nodes)),
        flops=sum(map(flops, cluster.nodes)),
        engine=backend.name,
        runs_on=backend.fingerprint,
        build=build,
    )


def rejection_row(node: Node, rejection: Rejection) -> RejectionRow:
    """The row of a node that PyTorch runs."""
    return RejectionRow(
        node=node.name,
        target=str(node.target),
        code=rejection.code,
        detail=rejection.detail,
        module=module_path(node),
        source=source_line(node) or "",
        flops=flops(node),
        computes=computes(node),
    )


def graph_rejection(gm: GraphModule, rejection: Rejection) -> Coverage:
    """The coverage of a Dynamo graph that stays as it is; its calls count as one row each."""
    return Coverage(
        rejections=tuple(
            RejectionRow(
                node=node.name,
                target=getattr(node.target, "__name__", str(node.target)),
                code=rejection.code,
                detail=rejection.detail,
                module=module_path(node),
                source=source_line(node) or "",
                flops=0,
                computes=True,
            )
            for node in gm.graph.nodes
            if node.op.startswith("call_")
        )
    )


def _clusters_table(rows: Sequence[ClusterRow]) -> str:
    total = sum(row.flops for row in rows) or 1
    table = [
        [
            row.name,
            _shorten(row.modules or "(model)", 30),
            row.nodes,
            f"{row.flops / 1e9:.2f}",
            f"{row.flops / total:.1%}",
            row.engine,
            *_build_cells(row.build),
        ]
        for row in rows
    ]
    headers = [
        "cluster",
        "module",
        "nodes",
        "GFLOPs",
        "share",
        "engine",
        "layers",
        "plan",
        "built in",
    ]
    return tabulate(table, headers=headers, disable_numparse=True)


def _build_cells(build: BuildInfo | None) -> list[str]:
    if build is None:
        return ["", "", "not built"]
    return [
        "" if build.layers is None else str(build.layers),
        "" if build.plan_bytes is None else f"{build.plan_bytes / 2**20:.1f} MiB",
        "from cache" if build.cached else f"{build.seconds:.2f} s",
    ]


def _rejections_table(rows: Sequence[RejectionRow]) -> str:
    counted = Counter((row.code, row.detail) for row in rows)
    weight: Counter[tuple[str, str]] = Counter()
    for row in rows:
        weight[row.code, row.detail] += row.flops
    ordered = sorted(counted, key=lambda key: (-weight[key], -counted[key], key))
    shown = ordered[:_MOST_REASONS]
    table = [[counted[key], key[0], _folded(key[1]), f"{weight[key] / 1e9:.2f}"] for key in shown]
    text = tabulate(table, headers=["nodes", "code", "reason", "GFLOPs"], disable_numparse=True)
    hidden = sum(counted[key] for key in ordered[_MOST_REASONS:])
    return text + (f"\n... and {hidden} nodes for other reasons" if hidden else "")


def _breaks_table(reasons: Sequence[str]) -> str:
    counted = Counter(reasons)
    table = [[count, _shorten(reason, _WIDTH + 20)] for reason, count in counted.most_common()]
    return tabulate(table, headers=["times", "reason"], disable_numparse=True)


def _folded(text: str) -> str:
    return "\n".join(textwrap.wrap(_shorten(text, _LINES * _WIDTH), _WIDTH))


def _shorten(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 3] + "..."
