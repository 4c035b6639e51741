"""The values of a report, which its forms read: clusters, rejections, graph breaks, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..builder.build import BuildInfo
from ..graph.provenance import shared_path
from .picture import Picture

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ClusterRow",
    "CoverageValues",
    "Fallback",
    "GraphBreak",
    "GuardRow",
    "RejectionRow",
    "RuntimeRow",
]


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster.

    module_paths: of the modules that its nodes come from, in order of first use.
    nodes:        its compute nodes; views, casts and sizes do not count.
    flops:        of one call, as torch counts them.
    ops:          its targets with how often each occurs, most frequent first.
    dtypes:       of the tensors in it, and first the precision that the engine was built for where
                  that is not the model's own.
    bytes_in, bytes_out: the tensors that it takes and gives, weights not counted.
    engine:       the name of its backend; `runs_on` says what that is on this machine.
    build:        None where nothing was built (a report before compiling).
    engine_ms, pytorch_ms: one call in the engine and in PyTorch; None where not measured.

    FLOPs and bytes are those of the example's sizes.
    """

    name: str
    module_paths: tuple[str, ...]
    nodes: int
    flops: int
    ops: tuple[tuple[str, int], ...]
    dtypes: tuple[str, ...]
    bytes_in: int
    bytes_out: int
    engine: str
    runs_on: str
    build: BuildInfo | None
    engine_ms: float | None = None
    pytorch_ms: float | None = None

    @property
    def modules(self) -> str:
        """The path that all its nodes lie under, or else the top modules that they come from."""
        return shared_path(self.module_paths)


@dataclass(frozen=True, slots=True)
class RejectionRow:
    """What PyTorch runs: a node of a graph, or calls that are in no graph.

    node:     the node's name; of calls outside of any graph the module's path.
    code:     of the `Rejection`; "outside" for what no graph holds.
    source:   the user's line, as "model.py:12 in forward".
    computes: whether it counts as compute nodes; a view does not.
    calls:    how many calls the row stands for.
    ms:       of all these calls; None where not measured.
    """

    node: str
    target: str
    code: str
    detail: str
    module: str
    source: str
    flops: int
    computes: bool
    calls: int = 1
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class GraphBreak:
    """Why Dynamo ended a graph, and the user's line where it did ("" if it does not say)."""

    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Fallback:
    """Calls of a cluster that ran in PyTorch while serving, because of their inputs."""

    cluster: str
    reason: str
    calls: int


@dataclass(frozen=True, slots=True)
class GuardRow:
    """The calls of a compiled module so far: as compiled, or in PyTorch as a whole.

    module:   its path in the model, "" for the model itself.
    compiled: how many of its `calls` ran as compiled.
    reasons:  why the others did not, and how many, most frequent first.
    """

    module: str
    calls: int
    compiled: int
    reasons: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """What the calls of a compiled model hold, and what became of them so far.

    slots:         how many calls may be in engines at once; `made`: the slots that there are.
    scratch_bytes: of device memory, in each slot.
    plan_bytes:    of all plans; their weights are in memory once.
    cuda_graphs:   whether they were asked for; `recorded`: how many there are, in all slots.
    unrecorded:    "node: why" for what a CUDA graph of the whole cannot hold, and for what failed.
    """

    slots: int
    made: int
    scratch_bytes: int
    plan_bytes: int
    cuda_graphs: bool = False
    recorded: int = 0
    unrecorded: tuple[str, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()


@dataclass(frozen=True, slots=True)
class CoverageValues:
    """What runs where: of one graph, or of all graphs of a model.

    clusters:     what runs in engines.
    rejections:   what runs in PyTorch, and why.
    graph_breaks: Dynamo's reasons for leaving the graph, in order.
    cuts:         the tensors that pass between a cluster and PyTorch or another cluster.
    cuts_before_repair: what they were before the boundaries were repaired.
    pictures:     one for each graph.
    runtime:      of a compiled model, at the time of the report; one row for each set of slots.
    guards:       of a model that `fxtrt.compile` returned, at the time of the report; one row for
                  each module that is compiled as a whole.
    capture:      a line each: how the graphs came about, and what would make fewer of them.
    """

    clusters: tuple[ClusterRow, ...] = ()
    rejections: tuple[RejectionRow, ...] = ()
    graph_breaks: tuple[GraphBreak, ...] = ()
    cuts: int = 0
    cuts_before_repair: int = 0
    pictures: tuple[Picture, ...] = ()
    runtime: tuple[RuntimeRow, ...] = ()
    capture: tuple[str, ...] = ()
    guards: tuple[GuardRow, ...] = ()

    @property
    def nodes(self) -> int:
        """The compute nodes that were seen; views, casts and sizes do not count."""
        return self.converted + sum(row.calls for row in self.rejections if row.computes)

    @property
    def converted(self) -> int:
        """The compute nodes that run in engines."""
        return sum(row.nodes for row in self.clusters)

    @property
    def flops(self) -> int:
        """The floating-point operations that were seen, as torch counts them."""
        outside = sum(row.flops for row in self.rejections)
        return outside + sum(row.flops for row in self.clusters)

    @property
    def flops_share(self) -> float:
        """The share (0..1) of `flops` that engines do."""
        inside = sum(row.flops for row in self.clusters)
        return inside / self.flops if self.flops else 0.0

    @property
    def kept_fp32(self) -> tuple[str, ...]:
        """What stays float32 because of its numbers: "cluster_0: node: reason"."""
        built = [(row.name, row.build) for row in self.clusters if row.build is not None]
        return tuple(f"{name}: {kept}" for name, build in built for kept in build.kept_fp32)

    @classmethod
    def total(cls, parts: Sequence[CoverageValues]) -> Self:
        """The coverage of several graphs together; clusters are numbered through."""
        clusters: list[ClusterRow] = []
        rejections: list[RejectionRow] = []
        pictures: list[Picture] = []
        for part in parts:
            pictures += [p.shifted(len(clusters), len(rejections)) for p in part.pictures]
            clusters += part.clusters
            rejections += part.rejections
        return cls(
            tuple(replace(row, name=f"cluster_{i}") for i, row in enumerate(clusters)),
            tuple(rejections),
            tuple(found for part in parts for found in part.graph_breaks),
            sum(part.cuts for part in parts),
            sum(part.cuts_before_repair for part in parts),
            tuple(pictures),
            tuple(row for part in parts for row in part.runtime),
            tuple(dict.fromkeys(line for part in parts for line in part.capture)),
            tuple(row for part in parts for row in part.guards),
        )
