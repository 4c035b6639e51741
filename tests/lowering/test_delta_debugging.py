"""The searches by halves find what they should, in few trials."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.fx import Node

from fxtrt.capture.export import trace
from fxtrt.errors import (
    BuildError,
    ConversionError,
    FxtrtError,
)
from fxtrt.lowering.delta_debugging import first_wrong, smallest_failing


def chain(length: int) -> list[Node]:
    """A chain of relu."""

    def function(x: torch.Tensor) -> torch.Tensor:
        for _ in range(length):
            x = torch.relu(x)
        return x

    return trace(function, (torch.randn(2),)).graph.find_nodes(
        op="call_function", target=torch.ops.aten.relu.default
    )


NODES = chain(40)


@given(culprit=st.integers(0, 39))
def test_one_failing_node_is_found(culprit: int) -> None:
    trials = []

    def fails(nodes: Sequence[Node]) -> FxtrtError | None:
        trials.append(nodes)
        return BuildError("small") if NODES[culprit] in nodes else None

    found, error = smallest_failing(NODES, BuildError("whole"), fails)
    assert found == [NODES[culprit]]
    assert str(error) == "small"
    assert len(trials) <= 12


def test_two_nodes_that_fail_together_are_both_found() -> None:
    pair = {NODES[3], NODES[4]}

    def fails(nodes: Sequence[Node]) -> FxtrtError | None:
        return BuildError("both") if pair <= set(nodes) else None

    found, _ = smallest_failing(NODES[:16], BuildError("whole"), fails)
    assert set(found) == pair


def test_another_error_does_not_count() -> None:
    def fails(nodes: Sequence[Node]) -> FxtrtError | None:
        return BuildError("whole") if len(nodes) == 8 else ConversionError("too little of it")

    found, _ = smallest_failing(NODES[:8], BuildError("whole"), fails)
    assert found == NODES[:8]


def test_the_search_for_a_failure_ends() -> None:
    trials = []

    def fails(nodes: Sequence[Node]) -> FxtrtError | None:
        trials.append(nodes)
        return BuildError("all") if len(nodes) == 40 else None

    found, _ = smallest_failing(NODES, BuildError("all"), fails)
    assert found == NODES
    assert len(trials) == 32


@pytest.mark.parametrize("culprit", [0, 1, 20, 39])
def test_the_first_wrong_node_is_found(culprit: int) -> None:
    assert first_wrong(NODES, lambda nodes: NODES[culprit] in nodes) is NODES[culprit]


def test_an_operator_and_its_results_stay_together() -> None:
    gm = trace(lambda x: torch.topk(torch.relu(x), 2), (torch.randn(5),))
    nodes = gm.graph.find_nodes(op="call_function", target=torch.ops.aten.topk.default)
    nodes += nodes[0].users
    assert first_wrong(nodes, lambda _: pytest.fail("there is but one prefix")) is nodes[0]
