"""Frozen weights: one compilation for each set of weights, none that outlives them."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx import GraphModule, symbolic_trace

from fxtrt.capture.frozen_weights import FrozenGraph

X = torch.tensor([1.0, 2.0])


class Compilations:
    """Compiles by doing nothing, and keeps no graph alive."""

    def __init__(self) -> None:
        self.graphs: list[weakref.ref[GraphModule]] = []

    def __call__(self, gm: GraphModule) -> Callable[..., Any]:
        self.graphs.append(weakref.ref(gm))
        return gm


def frozen(weight: torch.Tensor) -> tuple[FrozenGraph, Compilations]:
    compilations = Compilations()
    graph = FrozenGraph(symbolic_trace(lambda x, w: x * w), {1: weight}, compilations)
    graph.compile()
    return graph, compilations


def test_modules_that_share_a_graph_compile_once_each(caplog: pytest.LogCaptureFixture) -> None:
    one, two = torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0])
    graph, compilations = frozen(one)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            torch.testing.assert_close(graph(X, one), X * one)
            torch.testing.assert_close(graph(X, two), X * two)
    assert len(compilations.graphs) == 2
    assert caplog.text == ""


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda w: w.mul_(2), id="in place"),
        pytest.param(lambda w: setattr(w, "data", torch.tensor([7.0, 8.0])), id="other memory"),
    ],
)
def test_written_weights_compile_again(write: Any, caplog: pytest.LogCaptureFixture) -> None:
    weight = torch.tensor([3.0, 4.0])
    graph, compilations = frozen(weight)
    write(weight)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(graph(X, weight), X * weight)
        graph(X, weight)
    assert len(compilations.graphs) == 2
    assert "weights changed" in caplog.text


def test_a_write_during_the_compilation_is_noticed() -> None:
    weight = torch.tensor([3.0, 4.0])

    def compile_and_write(gm: GraphModule) -> Callable[..., Any]:
        result = gm(X)
        if not weight._version:
            weight.mul_(2)
        return lambda x: result

    graph = FrozenGraph(symbolic_trace(lambda x, w: x * w), {1: weight}, compile_and_write)
    graph.compile()
    torch.testing.assert_close(graph(X, weight), X * weight)


def test_what_was_compiled_goes_with_its_weights() -> None:
    weight = torch.tensor([3.0, 4.0])
    graph, compilations = frozen(weight)
    graph(X, weight)
    assert compilations.graphs[0]() is not None
    del weight
    gc.collect()
    assert compilations.graphs[0]() is None
    other = torch.tensor([5.0, 6.0])
    torch.testing.assert_close(graph(X, other), X * other)
