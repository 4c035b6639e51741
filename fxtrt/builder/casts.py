"""Turns a cluster into one that computes in another float type, by casts in its graph."""

from __future__ import annotations

import copy
import logging

import torch
from torch.fx import GraphModule, Node

from ..graph.patterns import Patterns
from ..passes.insert_casts import insert_casts
from ..passes.widen import widen
from ..settings import Settings
from .float_range import out_of_range

__all__ = ["COMPUTE_DTYPES", "with_precision"]

log = logging.getLogger(__name__)

COMPUTE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""The dtype for each `Settings.precision`; its other values keep the model's own dtypes."""


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
    patterns = Patterns(settings.keep_fp32)
    kept: list[str] = []

    def keeps(node: Node) -> bool:
        if patterns.match(node):
            return True
        reason = out_of_range(copied, node, dtype)
        if reason:
            kept.append(f"{node.name}: {reason}")
            log.warning("%s stays float32: %s", node.name, reason)
        return reason is not None

    insert_casts(copied, dtype, keeps)
    return copied, tuple(kept)
