"""Turns a cluster into one that computes in another float type, by casts in its graph."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable

import torch
from torch.fx import GraphModule, Node

from ..graph.patterns import Patterns
from ..passes.insert_casts import insert_casts, narrow_among
from ..passes.widen import widen
from ..settings import Settings
from .float_range import out_of_range

__all__ = ["COMPUTE_DTYPES", "keeps_float32", "narrow_results", "with_precision"]

COMPUTE_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.float16,
}
"""The dtype for each `Settings.precision`; its other values keep the model's own dtypes. What int8
computes is in the graph, as fake quantization; all else is as with fp16."""


def with_precision(cluster: GraphModule, settings: Settings) -> tuple[GraphModule, tuple[str, ...]]:
    """Return `cluster`, or a copy in the settings' precision with the same inputs and outputs.

    The second result is "node: reason" for each node that stays float32 because of its numbers.
    """
    dtype = COMPUTE_DTYPES.get(settings.precision)
    if dtype is None:
        return cluster, ()
    copied = GraphModule(cluster, copy.deepcopy(cluster.graph), class_name=type(cluster).__name__)
    if dtype == torch.float32:
        widen(copied)
        return copied, ()
    kept: list[str] = []

    def tell(node: Node, reason: str) -> None:
        kept.append(f"{node.name}: {reason}")

    insert_casts(copied, dtype, keeps_float32(copied, settings, dtype, tell))
    return copied, tuple(kept)


def narrow_results(
    gm: GraphModule, cluster: Collection[Node], wanted: Iterable[Node], settings: Settings
) -> set[Node]:
    """Return those of `wanted` that an engine computes in float16 or bfloat16, by the settings.

    Args:
        cluster: the nodes of `gm` that the engine runs.
        wanted: some of them.
    """
    dtype = COMPUTE_DTYPES.get(settings.precision)
    if dtype in (None, torch.float32):
        return set()
    return narrow_among(wanted, cluster, keeps_float32(gm, settings, dtype))


def keeps_float32(
    gm: GraphModule,
    settings: Settings,
    dtype: torch.dtype,
    tell: Callable[[Node, str], None] = lambda node, reason: None,
) -> Callable[[Node], bool]:
    """Return a function that says whether a node stays float32.

    Args:
        tell: gets each node that does because of its numbers, and the reason.
    """
    patterns = Patterns(settings.keep_fp32)

    def keeps(node: Node) -> bool:
        if patterns.match(node):
            return True
        reason = out_of_range(gm, node, dtype)
        if reason is not None:
            tell(node, reason)
        return reason is not None

    return keeps
