"""Products narrow, what lies between follows, everything else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.fx import GraphModule

from fxtrt.capture.export import trace
from fxtrt.passes.insert_casts import insert_casts

X = torch.randn(1, 4, 8, 8)
W = torch.randn(4, 4, 3, 3) * 0.1
B = torch.randn(4) * 0.1


def dtypes(gm: GraphModule) -> dict[str, torch.dtype]:
    return {
        node.name: node.meta["val"].dtype
        for node in gm.graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor) and "to_copy" not in node.name
        if node.op == "call_function"
    }


def casts(gm: GraphModule) -> int:
    return sum("to_copy" in node.name for node in gm.graph.nodes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_products_and_followers_are_narrow(dtype: torch.dtype) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(F.conv2d(x, W, B, padding=1))
        return F.max_pool2d(F.conv2d(y, W, padding=1) + y, 2)

    gm = trace(function, (X,))
    expected = gm(X)[0]
    assert insert_casts(gm, dtype)
    gm.graph.lint()
    assert set(dtypes(gm).values()) == {dtype}
    assert casts(gm) == 2
    assert gm(X)[0].dtype == torch.float32
    torch.testing.assert_close(gm(X)[0], expected, atol=0.05, rtol=0.05)


def test_other_operators_stay_wide() -> None:
    gm = trace(lambda x: F.conv2d(x, W).exp() * 100, (X,))
    insert_casts(gm, torch.float16)
    kinds = dtypes(gm)
    assert kinds["convolution"] == torch.float16
    assert kinds["exp"] == kinds["mul"] == torch.float32


def test_wide_operands_keep_an_operator_wide() -> None:
    anchors = torch.rand(4, 6, 6) * 1000
    gm = trace(lambda x: F.conv2d(x, W) + anchors, (X,))
    insert_casts(gm, torch.float16)
    assert dtypes(gm)["add"] == torch.float32


def test_a_value_is_cast_once() -> None:
    gm = trace(lambda x: (F.conv2d(x, W), F.conv2d(x, W + 0.0)), (X,))
    insert_casts(gm, torch.float16)
    assert casts(gm) == 4  # the input, the weight that is computed, and two outputs


@pytest.mark.parametrize("split", [lambda y: y.split([1, 3], 1), lambda y: y.chunk(2, 1)])
def test_parts_of_a_narrow_value_are_narrow(split: Callable[..., Any]) -> None:
    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = split(F.conv2d(x, W))
        return torch.relu(first), second.exp()

    gm = trace(function, (X,))
    expected = gm(X)
    assert insert_casts(gm, torch.float16, lambda node: node.name == "getitem")
    gm.graph.lint()
    assert dtypes(gm)["relu"] == torch.float16
    assert dtypes(gm)["exp"] == torch.float32
    for actual, wanted in zip(gm(X), expected, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, wanted, atol=0.05, rtol=0.05)


def test_a_second_run_changes_nothing() -> None:
    gm = trace(lambda x: torch.relu(F.conv2d(x, W)), (X,))
    assert insert_casts(gm, torch.float16)
    assert not insert_casts(gm, torch.float16)


def test_integers_and_graphs_without_products_are_left_alone() -> None:
    gm = trace(lambda x: (x * 2, x.argmax(1) + 1), (X,))
    assert not insert_casts(gm, torch.float16)
    assert casts(gm) == 0
