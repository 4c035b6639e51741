"""Expressions of dynamic sizes become layers that compute them, or are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fxtrt
from fxtrt.capture.export import trace
from fxtrt.conversion.convert import convert
from fxtrt.engines.base import EngineBackend
from fxtrt.errors import ConversionError

Size = Any
"""A SymInt while tracing; typed as the int that it stands for nowhere."""

EXPRESSIONS: dict[str, Callable[[Size, Size], Size]] = {
    "s0 // 2": lambda a, b: a // 2,
    "32 * s1": lambda a, b: 32 * b,
    "s0 + s1 - 1": lambda a, b: a + b - 1,
    "s0**2 - s1": lambda a, b: a**2 - b,
    "s0 * s1 // 5": lambda a, b: a * b // 5,
    "max": lambda a, b: torch.sym_max(a, b),
    "min": lambda a, b: torch.sym_min(a, b),
    "s0 % 3": lambda a, b: a % 3 + 1,
    "-s0 % 4": lambda a, b: -a % 4 + 1,
    "-(-s0 // 3)": lambda a, b: -(-a // 3),
    "s0 >> 1": lambda a, b: a >> 1,
    "ceil(s0 / 3)": lambda a, b: math.ceil(a / 3),
    "floor(s0 / 3)": lambda a, b: math.floor(a / 3),
    "floor(1.5 * s0)": lambda a, b: math.floor(a * 1.5),
    "ceil(0.25 * s0)": lambda a, b: math.ceil(a * 0.25),
    "ceil((s0 - 2.0) / 3)": lambda a, b: math.ceil((a - 2.0) / 3),
    "trunc(0.5 * s0)": lambda a, b: torch.sym_int(a * 0.5),
}
REFUSED: dict[str, Callable[[Size, Size], Size]] = {
    # 0.3 * 10 is 3.0 in floats; the nearest fraction of 0.3 times 10 is less than 3.
    "floor(0.3 * s0)": lambda a, b: math.floor(a * 0.3),
    "ceil((s0 + 0.5) / 3)": lambda a, b: math.ceil((a + 0.5) / 3),
    "trunc((s0 - 20) / 3)": lambda a, b: torch.sym_int((a - 20) / 3) + 20,
    "s0 & 3": lambda a, b: (a & 3) + 1,
}


def ones_of(size: Callable[[Size, Size], Size]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x.new_ones(size(x.shape[0], x.shape[1]))


@pytest.mark.parametrize("size", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_an_expression_becomes_layers(
    size: Callable[[Size, Size], Size], reference: EngineBackend
) -> None:
    function = ones_of(size)
    gm = trace(function, (torch.ones(7, 8),), dynamic=True)
    network = convert(gm, reference.features)
    engine = reference.load(network, network.inputs, network.outputs)
    for shape in ((7, 8), (4, 5), (9, 6), (10, 12)):
        x = torch.ones(shape)
        (result,) = engine.run([x])
        assert result.shape == function(x).shape


@pytest.mark.parametrize("size", REFUSED.values(), ids=REFUSED)
def test_a_number_is_refused_that_layers_would_get_wrong(
    size: Callable[[Size, Size], Size], reference: EngineBackend
) -> None:
    gm = trace(ones_of(size), (torch.ones(7, 8),), dynamic=True)
    with pytest.raises(ConversionError, match="no layers for the size"):
        convert(gm, reference.features)


class ByRatio(torch.nn.Module):
    """Takes a third of the rows that an inner tensor has: the number is a float on its way."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2)
        return y[: math.ceil(y.shape[0] / 3)] + 1


def test_floats_on_the_way_to_a_size_cut_nothing() -> None:
    model, rows = ByRatio().eval(), torch.export.Dim.AUTO(min=4, max=30)
    fast = fxtrt.compile(
        model, (torch.randn(8, 3),), dynamic_shapes=({0: rows},), engine="reference"
    )
    coverage = fxtrt.report(fast)
    assert (len(coverage.clusters), coverage.converted, coverage.nodes) == (1, 3, 3)
    for count in (8, 4, 9, 10):
        x = torch.randn(count, 3)
        torch.testing.assert_close(fast(x), model(x))
    assert fast.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


class ByContent(torch.nn.Module):
    """Divides by a number that is read from a tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(x * 2)
        return torch.relu(y * ((y.sum() + 1).item() / 3)) + 1


def test_a_number_read_from_a_tensor_is_no_size() -> None:
    model = ByContent().eval()
    fast = fxtrt.compile(model, (torch.randn(4, 5),), engine="reference", min_cluster_size=1)
    for _ in range(2):
        x = torch.randn(4, 5)
        torch.testing.assert_close(fast(x), model(x))
    coverage = fxtrt.report(fast)
    assert len(coverage.clusters) == 2
    details = {row.target: row.detail for row in coverage.rejections}
    assert "a float computed from sizes" in details["aten.mul.Tensor"]
    assert "no converter" in details["aten._local_scalar_dense.default"]
