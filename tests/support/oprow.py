"""How a row of the operator table runs: check, convert, execute, compare."""

from __future__ import annotations

from functools import cache

import torch

from fxtrt.diagnostics.operator_rows.row import (
    OpRow,
    T,
    TracedRow,
    V,
    W,
    in_float16,
    trace_row,
)
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.network import Network
from fxtrt.graph.nodes import is_size
from fxtrt.partition.support import support
from fxtrt.registry import Rejection

__all__ = [
    "OpRow",
    "T",
    "TracedRow",
    "V",
    "W",
    "compare",
    "in_float16",
    "layer_kinds",
    "rejection_of",
    "trace_row",
    "traced_row",
]


@cache
def traced_row(row: OpRow) -> TracedRow:
    """`trace_row` with static sizes, traced once for all tests that want it."""
    return trace_row(row)


def compare(row: OpRow, traced: TracedRow, network: Network, backend: EngineBackend) -> None:
    """Run `network` on the row's inputs.

    Raises:
        AssertionError: an output is not what torch gives, or not of its dtype or shape.
    """
    engine = backend.load(network, network.inputs, network.outputs)
    actual = engine.run(traced.inputs)
    torch.testing.assert_close(
        actual, traced.expected, atol=row.tolerance, rtol=row.tolerance, equal_nan=True
    )


def layer_kinds(network: Network) -> list[str]:
    """The names of the LayerTypes of `network`, layer by layer."""
    definition = network.definition
    return [definition.get_layer(i).type.name for i in range(definition.num_layers)]


def rejection_of(traced: TracedRow, backend: EngineBackend) -> Rejection | None:
    """The first rejection among the row's nodes."""
    for node in traced.gm.graph.nodes:
        if node.op != "call_function" or is_size(node):
            continue
        if found := support(node, backend, whitelisted=True):
            return found
    return None
