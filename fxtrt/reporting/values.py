"""Holds the values of a report: clusters, rejections, graph breaks and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..builder.build import BuildInfo
from ..graph.provenance import shared_path
from ..runtime.engine_check import EngineCheck
from .picture import Picture

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ClusterRow",
    "CoverageValues",
    "DemotionRow",
    "Fallback",
    "GateRow",
    "GraphBreak",
    "GuardRow",
    "RejectionRow",
    "RuntimeRow",
]


@dataclass(frozen=True, slots=True)
class ClusterRow:
    """One cluster.

    module_paths: the modules that its nodes come from, in order of first use.
    nodes:        the number of compute nodes; views, casts and sizes do not count.
    flops:        the FLOPs of one call, as torch counts them.
    ops:          its targets with how often each occurs, most frequent first.
    dtypes:       the dtypes of its tensors, after the precision that the engine was built for if
                  that is not the model's own.
    bytes_in, bytes_out: the sizes of the tensors that it takes and gives, without weights.
    engine:       the name of its backend.
    runs_on:      the versions and the GPU that the backend has on this machine.
    build:        how its engine came about; None in a report before compiling.
    engine_ms, pytorch_ms: the times of one call in the engine and in PyTorch, if measured.
    inputs, outputs: the tensors that it takes and gives, as "name: float16 channels-last"; one
                  without "channels-last" is contiguous.
    check:        how its answers compare with PyTorch's; None where engines are not checked.

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
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    check: EngineCheck | None = None

    @property
    def modules(self) -> str:
        """Return the path that all its nodes lie under, or else the top modules they come from."""
        return shared_path(self.module_paths)


@dataclass(frozen=True, slots=True)
class RejectionRow:
    """What PyTorch runs: a node of a graph, or calls that are in no graph.

    node:     the node's name, or the module's path if the calls are in no graph.
    code:     the code of the `Rejection`, or "outside" if the calls are in no graph.
    source:   the line of the user's code, as "model.py:12 in forward".
    computes: whether it counts as compute nodes; a view does not.
    calls:    how many calls the row stands for.
    ms:       the time of all these calls, if measured.
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
    """Why Dynamo ended a graph, and the line of the user's code, or "" if Dynamo names none."""

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
    """The calls of a compiled module so far, each as compiled or in PyTorch as a whole.

    module:   its path in the model, "" for the model itself.
    compiled: how many of its `calls` ran as compiled.
    reasons:  why the others did not, with their numbers, most frequent first.
    """

    module: str
    calls: int
    compiled: int
    reasons: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RuntimeRow:
    """What the calls of a compiled model use, and what became of them so far.

    slots:         how many calls may be in engines at once.
    made:          how many slots exist by now.
    scratch_bytes: the most scratch memory of each slot, in device memory.
    taken_bytes:   the scratch memory of all slots that exist. From TensorRT 10 on, a slot takes
                   what the largest inputs so far needed.
    plan_bytes:    the size of all plans; their weights are in memory once.
    cuda_graphs:   whether CUDA graphs are recorded.
    recorded:      how many CUDA graphs there are in all slots.
    graph_bytes:   the device memory that these took, with their inputs and outputs.
    unrecorded:    "node: why" for what a CUDA graph of the whole cannot hold, and for what failed.
    fallbacks:     the calls of clusters that ran in PyTorch.
    """

    slots: int
    made: int
    scratch_bytes: int
    plan_bytes: int
    cuda_graphs: bool = False
    recorded: int = 0
    graph_bytes: int = 0
    unrecorded: tuple[str, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    taken_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DemotionRow:
    """A call that computes in another precision, or in PyTorch, so that its model passes a gate.

    before, after:  the precision that it had and the one that it has, or "engine" and "PyTorch".
    setting, entry: the field of `Settings` that does this, and the pattern in it.
    flops:          the FLOPs of one call, which now run in the slower precision.
    error:          of its result if it alone has the precision before, relative to the result; None
                    where that was not to blame.
    wins:           how much lower the metric would be without this demotion; None where that was
                    not tried.
    """

    node: str
    target: str
    module: str
    source: str
    before: str
    after: str
    setting: str
    entry: str
    flops: int
    error: float | None
    wins: float | None


@dataclass(frozen=True, slots=True)
class GateRow:
    """The way in which a compiled model passed its accuracy gate.

    A loss is how much lower the metric is than for the model itself, and may be negative.

    images:         how many the metric was taken over.
    baseline:       the metric of the model itself.
    loss_before:    simulated, without the demotions; None if the metric was no number.
    loss_simulated: with them.
    loss:           of the engines; None where this machine cannot run them.
    builds:         how often engines were built for the gate.
    runs:           how many runs of one item of the gate's images were simulated.
    minimal:        whether the search came to its end. If harm adds up, no demotion is needless.
    costs_ms:       what the demotions add to the times of all engines; None where that was not
                    measured.
    """

    metric: str
    images: int
    most_loss: float
    baseline: float
    loss_before: float | None
    loss_simulated: float
    loss: float | None
    builds: int
    runs: int
    minimal: bool = True
    costs_ms: float | None = None
    demotions: tuple[DemotionRow, ...] = ()


@dataclass(frozen=True, slots=True)
class CoverageValues:
    """What runs where, in one graph or in all graphs of a model.

    clusters:     what runs in engines.
    rejections:   what runs in PyTorch, and why.
    graph_breaks: Dynamo's reasons for leaving the graph, in order.
    cuts:         the tensors that pass between a cluster and PyTorch or another cluster.
    cuts_before_repair: how many there were before the boundaries were repaired.
    pictures:     one for each graph.
    runtime:      one row for each set of slots of a compiled model, at the time of the report.
    guards:       one row for each module that `fxtrt.compile` compiled as a whole, at the time of
                  the report.
    capture:      lines on how the graphs came about, and on what would make fewer of them.
    int8:         how many nodes in engines compute in int8.
    kept_fp16:    "node: reason" for each product that "int8" leaves in float16.
    gate:         one row if the model was compiled with an accuracy gate.
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
    int8: int = 0
    kept_fp16: tuple[str, ...] = ()
    gate: tuple[GateRow, ...] = ()

    @property
    def nodes(self) -> int:
        """Count the compute nodes that were seen; views, casts and sizes do not count."""
        return self.converted + sum(row.calls for row in self.rejections if row.computes)

    @property
    def converted(self) -> int:
        """Count the compute nodes that run in engines."""
        return sum(row.nodes for row in self.clusters)

    @property
    def flops(self) -> int:
        """Count the floating-point operations that were seen, as torch does."""
        outside = sum(row.flops for row in self.rejections)
        return outside + sum(row.flops for row in self.clusters)

    @property
    def flops_share(self) -> float:
        """Return the share (0..1) of `flops` that engines do."""
        inside = sum(row.flops for row in self.clusters)
        return inside / self.flops if self.flops else 0.0

    @property
    def kept_fp32(self) -> tuple[str, ...]:
        """Return "cluster_0: node: reason" for each node that stays float32."""
        built = [(row.name, row.build) for row in self.clusters if row.build is not None]
        return tuple(f"{name}: {kept}" for name, build in built for kept in build.kept_fp32)

    @property
    def checks(self) -> tuple[str, ...]:
        """Return "cluster_0: what was compared" for each engine that should be checked."""
        return tuple(f"{row.name}: {row.check}" for row in self.clusters if row.check is not None)

    @classmethod
    def total(cls, parts: Sequence[CoverageValues]) -> Self:
        """Add up the coverages of several graphs; clusters are numbered through."""
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
            sum(part.int8 for part in parts),
            tuple(line for part in parts for line in part.kept_fp16),
            tuple(row for part in parts for row in part.gate),
        )
