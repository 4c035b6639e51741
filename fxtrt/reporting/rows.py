"""Turns what became of a graph's nodes into the rows of its Coverage."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..builder.build import BuildInfo
from ..builder.casts import COMPUTE_DTYPES
from ..capture.model_parts import Missed
from ..capture.uncaptured import OutsideCall
from ..engines.base import EngineBackend
from ..graph.flops import flops
from ..graph.formats import Form
from ..graph.metadata import PARTS_OF
from ..graph.nodes import producer
from ..graph.provenance import module_path, source_line
from ..graph.sizes import hint
from ..partition.extract import Extracted
from ..partition.partition import Partition, computes
from ..registry import Rejection
from ..runtime.engine_check import EngineCheck
from ..runtime.timing import Timing
from .coverage import Coverage
from .picture import picture, target_name
from .values import ClusterRow, GraphBreak, RejectionRow

__all__ = ["cluster_row", "graph_coverage", "graph_rejection", "missed_rows", "outside_rows"]

_OUTSIDE = "outside of any graph"


def cluster_row(
    extracted: Extracted,
    backend: EngineBackend,
    build: BuildInfo | None = None,
    timing: Timing | None = None,
    check: EngineCheck | None = None,
) -> ClusterRow:
    """Make the row of a cluster that an engine runs.

    Args:
        build: how the engine came about; None in a report before compiling.
        timing: of its calls, where the partition is measured.
        check: of its answers, where they were compared with PyTorch's.
    """
    cluster = extracted.cluster
    nodes = cluster.nodes
    targets = Counter(map(_operator, filter(computes, nodes)))
    tensors = pytree.tree_leaves([node.meta["val"] for node in nodes])
    dtypes = sorted({_name_of(value.dtype) for value in tensors if isinstance(value, torch.Tensor)})
    if computed_in := COMPUTE_DTYPES.get(cluster.settings.precision):
        dtypes = list(dict.fromkeys([_name_of(computed_in), *dtypes]))
    return ClusterRow(
        name=cluster.name,
        module_paths=tuple(dict.fromkeys(filter(None, map(module_path, nodes)))),
        nodes=sum(map(computes, nodes)),
        flops=sum(map(flops, nodes)),
        ops=tuple(sorted(targets.items(), key=lambda item: (-item[1], item[0]))),
        dtypes=tuple(dtypes),
        bytes_in=_bytes(extracted.taken),
        bytes_out=_bytes(extracted.given),
        engine=backend.name,
        runs_on=backend.fingerprint,
        build=build,
        engine_ms=timing.engine_ms if timing else None,
        pytorch_ms=timing.pytorch_ms if timing else None,
        inputs=_crossing(extracted.inputs, extracted.taken),
        outputs=_crossing(extracted.outputs, extracted.given),
        check=check,
    )


def graph_coverage(
    gm: GraphModule,
    partition: Partition,
    extracted: Sequence[Extracted],
    clusters: Sequence[ClusterRow],
) -> Coverage:
    """Make the coverage of a graph, before its clusters are stitched.

    Args:
        extracted, clusters: the clusters of the partition and their rows, in one order.
    """
    every = [node for node in gm.graph.nodes if node in partition.rejections]
    rejected, row_of = _calls(every)
    rows = tuple(_rejection_row(node, partition.rejections[node]) for node in rejected)
    drawn = picture(gm, [one.cluster for one in extracted], row_of)
    return Coverage(
        tuple(clusters), rows, (), partition.cuts, partition.cuts_before_repair, pictures=(drawn,)
    )


def graph_rejection(gm: GraphModule, rejection: Rejection) -> Coverage:
    """Make the coverage of a Dynamo graph that stays as it is, with one row for each call."""
    calls, row_of = _calls([node for node in gm.graph.nodes if node.op.startswith("call_")])
    rows = tuple(_row(node, rejection, 0, computed=True) for node in calls)
    drawn = picture(gm, (), row_of)
    return Coverage(rejections=rows, pictures=(drawn,))


def outside_rows(
    calls: Sequence[OutsideCall], breaks: Sequence[GraphBreak] = (), *, timed: bool = False
) -> tuple[RejectionRow, ...]:
    """Make the rows of the calls that no graph holds.

    Args:
        breaks: the detail of a call on the line of one of these gives its reason.
        timed: whether to give the times.
    """
    at = {found.source: found.reason for found in breaks if found.source}
    return tuple(
        RejectionRow(
            node=call.module,
            target=call.target,
            code="outside",
            detail=f"{_OUTSIDE}: {at[call.source]}" if call.source in at else _OUTSIDE,
            module=call.module,
            source=call.source,
            flops=call.flops,
            computes=call.computes,
            calls=call.calls,
            ms=call.ms if timed else None,
        )
        for call in calls
    )


def missed_rows(missed: Sequence[Missed]) -> tuple[RejectionRow, ...]:
    """Make the rows of the modules that could not be captured."""
    return tuple(
        RejectionRow(
            node=one.module or one.kind,
            target=one.kind,
            code="capture",
            detail=one.reason,
            module=one.module,
            source="",
            flops=0,
            computes=False,
        )
        for one in missed
    )


def _calls(nodes: Sequence[Node]) -> tuple[list[Node], dict[Node, int]]:
    """Return the calls among `nodes`, and for each of `nodes` the index of its call.

    One of several results of a call belongs to that call.
    """
    index: dict[Node, int] = {}
    calls: list[Node] = []
    for node in nodes:
        source = producer(node)
        if source is not node and source in index:
            index[node] = index[source]
        else:
            index[node] = len(calls)
            calls.append(node)
    return calls, index


def _operator(node: Node) -> str:
    """Name the node's operator, and the operator that it is a part of, if it is one."""
    wholes = node.meta.get(PARTS_OF, ())
    return f"{node.target} of {wholes[0][1]}" if wholes else str(node.target)


def _rejection_row(node: Node, rejection: Rejection) -> RejectionRow:
    return _row(node, rejection, flops(node), computed=computes(node))


def _row(node: Node, rejection: Rejection, count: int, *, computed: bool) -> RejectionRow:
    return RejectionRow(
        node=node.name,
        target=target_name(node),
        code=rejection.code,
        detail=rejection.detail,
        module=module_path(node),
        source=source_line(node) or "",
        flops=count,
        computes=computed,
    )


def _crossing(nodes: Sequence[Node], values: Sequence[Any]) -> tuple[str, ...]:
    """Return the name and the form of each tensor that passes a boundary."""
    pairs = zip(nodes, values, strict=True)
    tensors = [(node, value) for node, value in pairs if isinstance(value, torch.Tensor)]
    return tuple(f"{node.name}: {Form.of(value)}" for node, value in tensors)


def _bytes(values: Sequence[Any]) -> int:
    """Add up the bytes of tensors at the example's sizes.

    A size that depends on data counts as its largest.
    """
    return sum(
        value.element_size() * math.prod(map(hint, value.shape))
        for value in values
        if isinstance(value, torch.Tensor)
    )


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
