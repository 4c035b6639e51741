"""A graph computes in float32 inside, and takes and gives what it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from passcheck import check_changes, check_keeps
from torch.fx import Graph, GraphModule

from fxtrt.capture.export import trace
from fxtrt.graph.metadata import fake_mode_of, infer
from fxtrt.passes.widen import widen

aten = torch.ops.aten
HALVES = (torch.float16, torch.bfloat16)


def inner_dtypes(gm: GraphModule) -> set[torch.dtype]:
    """Return the dtypes of all calls but casts."""
    calls = [node for node in gm.graph.nodes if node.op == "call_function"]
    return {node.meta["val"].dtype for node in calls if node.target != aten._to_copy.default}


@pytest.mark.parametrize("dtype", HALVES)
def test_calls_and_weights_become_float32(dtype: torch.dtype) -> None:
    x, w = torch.rand(1, 4, 6, 6).to(dtype), torch.rand(4, 4, 1, 1).to(dtype)
    gm = trace(lambda x: (F.conv2d(x, w).relu(), x.argmax(1)), (x,))
    floats, _ = check_changes(widen, gm, (x,), tolerance=1e-2)
    assert floats.dtype == dtype
    assert inner_dtypes(gm) == {torch.float32, torch.int64}


def test_rounding_in_the_middle_goes() -> None:
    gm = trace(lambda x: (x.half() + 0.0).float() * 1.0, (torch.tensor([1 + 2**-20]),))
    assert gm(torch.tensor([1 + 2**-20]))[0] == 1
    assert widen(gm)
    assert gm(torch.tensor([1 + 2**-20]))[0] == 1 + 2**-20


def test_results_that_are_inputs_or_weights_stay_as_they_are() -> None:
    x, w = torch.rand(3).half(), torch.rand(3).half()
    gm = trace(lambda x: (x, w, x + w), (x,))
    check_changes(widen, gm, (x,))
    sources = gm.graph.output_node().args[0]
    assert [node.op for node in sources] == ["placeholder", "get_attr", "call_function"]  # type: ignore[union-attr]  # nodes


def test_created_tensors_become_float32() -> None:
    x = torch.rand(3).half()
    gm = trace(lambda x: x + torch.arange(3, dtype=torch.half), (x,))
    check_changes(widen, gm, (x,))
    assert inner_dtypes(gm) == {torch.float32}


def test_softmax_no_longer_widens_by_itself() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    double = graph.call_function(aten.add.Tensor, (x, x))
    call = graph.call_function(aten._softmax.default, (double, 0, False))
    graph.output((call,))
    gm = GraphModule({}, graph)
    x.meta["val"] = fake_mode_of(gm).from_tensor(torch.rand(3).half())
    infer(double, x)
    infer(call, x)
    call.update_arg(2, True)  # as on a GPU, where softmax(x, dtype=torch.float32) is one call
    call.meta["val"] = call.meta["val"].float()
    assert widen(gm)
    (call,) = gm.graph.find_nodes(op="call_function", target=aten._softmax.default)
    assert call.args[2] is False
    assert call.meta["val"].dtype == torch.float32


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.relu(), id="float32"),
        pytest.param(lambda x: x.relu().half(), id="a cast at the border"),
        pytest.param(lambda x: x.argmax(0), id="integers"),
    ],
)
def test_a_graph_without_half_calls_is_left_alone(function: Any) -> None:
    check_keeps(widen, trace(function, (torch.rand(3),)))
