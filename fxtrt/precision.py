"""Runs a cluster in a narrower float type, with the casts written into its graph."""

from __future__ import annotations

import copy

import torch
from torch.fx import GraphModule

from .passes.insert_casts import insert_casts

__all__ = ["with_precision"]

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def with_precision(cluster: GraphModule, precision: str) -> GraphModule:
    """`cluster`, or a copy that computes as `Settings.precision` says; same inputs and outputs."""
    if precision == "model":
        return cluster
    narrowed = GraphModule(cluster, copy.deepcopy(cluster.graph), class_name=type(cluster).__name__)
    insert_casts(narrowed, _DTYPES[precision])
    return narrowed
