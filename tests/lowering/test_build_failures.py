"""A cluster that does not build loses the nodes that are to blame, and keeps its engine else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from failing_engine import FailingBackend, no_implementation
from graphs import replace_converter
from settlements import left_with, network, options, settled_as_eager
from torch.fx import GraphModule

from fxtrt.capture.export import trace
from fxtrt.engines.base import EngineBackend
from fxtrt.engines.target import Target
from fxtrt.errors import BuildError
from fxtrt.lowering.settle import Settled, settle

aten = torch.ops.aten


def failed(settled: Settled) -> dict[str, str]:
    return left_with("build_failed", settled)


def has(*nodes: str) -> Callable[[Sequence[str]], bool]:
    """Return a test of whether a network has layers of all these nodes."""
    return lambda layers: set(nodes) <= {layer.rpartition(".")[0] for layer in layers}


def test_a_range_that_cannot_be_built_leaves_and_the_rest_keeps_its_engine() -> None:
    backend = FailingBackend(
        lambda layers: (
            no_implementation("{ForeignNode[cos.0...abs_1.0]}") if has("cos")(layers) else ""
        )
    )
    settled = settled_as_eager(backend, network())
    assert failed(settled).keys() == {"cos", "exp", "abs_1"}
    (detail,) = set(failed(settled).values())
    assert "Could not find any implementation for node {ForeignNode[cos.0...abs_1.0]}" in detail
    built = {node.name for one in settled.built for node in one.extracted.cluster.nodes}
    assert {"convolution_2", "relu_2", "sigmoid"} <= built


def test_each_failure_takes_its_own_nodes() -> None:
    def message(layers: Sequence[str]) -> str:
        for node in ("cos", "exp", "tanh"):
            if has(node)(layers):
                return no_implementation(f"{node}.0")
        return ""

    backend = FailingBackend(message)
    settled = settled_as_eager(backend, network())
    assert failed(settled).keys() == {"cos", "exp", "tanh"}


def test_what_is_built_is_not_built_again() -> None:
    backend = FailingBackend(
        lambda layers: no_implementation("cos.0") if has("cos")(layers) else ""
    )
    settle(network(), Target(backend, options()))
    assert len({tuple(layers) for layers in backend.builds}) == len(backend.builds)


def test_a_failing_engine_of_products_is_halved_where_nothing_is_named() -> None:
    backend = FailingBackend(lambda layers: "Internal Error" if has("cos", "exp")(layers) else "")
    settled = settled_as_eager(backend, network())
    assert failed(settled).keys() == {"cos", "exp"}


@pytest.mark.parametrize("name", ["gone.0", "(Unnamed Layer* 7) [Shuffle]", "x.0"])
def test_a_name_that_is_no_node_is_no_name(name: str) -> None:
    backend = FailingBackend(
        lambda layers: no_implementation(name) if has("relu_1")(layers) else ""
    )
    settled = settled_as_eager(backend, network())
    assert failed(settled).keys() == {"relu_1"}


def pointwise_and_product() -> GraphModule:
    """A product in PyTorch between two clusters, of which the second has no FLOPs."""

    def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.mm(x, w))
        return torch.erfinv(torch.tanh(x)).sin().cos().exp().abs()

    return trace(function, (torch.rand(8, 8), torch.rand(8, 8)))


def test_a_small_cluster_is_not_worth_a_search_where_nothing_is_named() -> None:
    backend = FailingBackend(lambda layers: "Internal Error" if has("exp")(layers) else "")
    whitelist = ("aten.sin",)
    settled = settle(pointwise_and_product(), Target(backend, options(whitelist=whitelist)))
    assert failed(settled).keys() == {"sin", "cos", "exp", "abs_1"}
    assert len(backend.builds) == 2
    settled = settle(
        pointwise_and_product(),
        Target(backend, options(whitelist=whitelist, on_build_failure="bisect")),
    )
    assert failed(settled).keys() == {"exp"}


def test_a_range_with_products_in_it_is_narrowed() -> None:
    """Nobody loses a backbone because the error names its first and last layer."""
    message = no_implementation("{ForeignNode[convolution.0...sigmoid.0]}")
    backend = FailingBackend(lambda layers: message if has("relu_1")(layers) else "")
    settled = settled_as_eager(backend, network())
    assert failed(settled).keys() == {"relu_1"}


def test_bisection_starts_with_the_named_nodes_if_they_fail_alone() -> None:
    def message(layers: Sequence[str]) -> str:
        return no_implementation("{ForeignNode[sin.0...tanh.0]}") if has("exp")(layers) else ""

    settings = {"on_build_failure": "bisect"}
    backend = FailingBackend(message)
    settled = settled_as_eager(backend, network(12), **settings)
    assert failed(settled).keys() == {"exp"}
    unnamed = FailingBackend(lambda layers: "Internal Error" if has("exp")(layers) else "")
    settled_as_eager(unnamed, network(12), **settings)
    assert sum(map(len, backend.builds)) < sum(map(len, unnamed.builds))


@pytest.mark.parametrize("on_build_failure", ["fallback", "bisect"])
@pytest.mark.parametrize("names", [True, False])
def test_what_always_fails_ends_in_pytorch_after_few_builds(
    on_build_failure: str, names: bool
) -> None:
    backend = FailingBackend(lambda layers: no_implementation(layers[-1] if names else "?"))
    settled = settled_as_eager(backend, network(20), on_build_failure=on_build_failure)
    assert settled.built == []
    assert len(settled.partition.rejections) == 47
    assert len(backend.builds) <= 200


def test_a_failure_is_raised_where_asked_for() -> None:
    backend = FailingBackend(lambda layers: no_implementation("cos.0"))
    with pytest.raises(BuildError, match="node cos"):
        settle(network(), Target(backend, options(on_build_failure="raise")))
    assert len(backend.builds) == 1


def test_all_calls_that_a_converter_fails_on_leave_at_once(
    reference: EngineBackend, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(ctx: Any, x: Any) -> Any:
        raise ValueError("no such layer today")

    replace_converter(monkeypatch, aten.relu.default, fail)
    with caplog.at_level(logging.WARNING, "fxtrt"):
        settled = settle(network(20), Target(reference, options()))
    assert failed(settled).keys() == {"relu", *(f"relu_{i}" for i in range(1, 20))}
    assert sum("does not build" in message for message in caplog.messages) == 1
    assert "cluster_0: 20 of 47 nodes leave for PyTorch" in caplog.messages
