"""Quantizers of torchao and ModelOpt become pairs, or stay with a reason."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from passcheck import check_changes, check_keeps, targets
from torch import Tensor

import fxtrt
from fxtrt import registry
from fxtrt.capture.export import trace
from fxtrt.passes.pair_quantizers import pair_quantizers

# Importing this module defines the operators of `quantized_decomposed`.
import torch.ao.quantization.fx._decomposed  # isort: skip

pytestmark = pytest.mark.usefixtures("no_grad")

decomposed = torch.ops.quantized_decomposed
INT8 = (-128, 127, torch.int8)


def traced(function: Callable[..., Any], *inputs: Tensor) -> Any:
    return trace(function, inputs)


def pair(x: Tensor, scale: float = 0.25, again: float = 0.25, zero: int = 0) -> Any:
    steps = decomposed.quantize_per_tensor(x, scale, zero, *INT8)
    return decomposed.dequantize_per_tensor(steps, again, zero, *INT8)


def test_pair_per_tensor_becomes_one_node() -> None:
    x = torch.linspace(-50, 50, 60).reshape(3, 4, 5)
    gm = traced(lambda x: pair(x), x)
    check_changes(pair_quantizers, gm, (x,))
    assert targets(gm) == ["fxtrt.fake_quantize.default"]


def test_int8_weight_becomes_a_float_weight_with_a_quantizer() -> None:
    steps = torch.randint(-127, 128, (3, 4), dtype=torch.int8)
    scales, zeros = torch.tensor([0.5, 0.25, 0.125]), torch.zeros(3, dtype=torch.int64)

    def function(x: Tensor) -> Any:
        return x + decomposed.dequantize_per_channel(steps, scales, zeros, 0, *INT8)

    x = torch.zeros(3, 4)
    gm = traced(function, x)
    check_changes(pair_quantizers, gm, (x,))
    assert targets(gm) == ["fxtrt.fake_quantize_channels.default", "add.Tensor"]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: pair(x, again=0.5),
        lambda x: pair(x, zero=3),
        lambda x: decomposed.quantize_per_tensor(x, 0.5, 0, *INT8),
    ],
    ids=["other_scale", "asymmetric", "alone"],
)
def test_what_is_no_pair_stays(function: Callable[..., Any]) -> None:
    check_keeps(pair_quantizers, traced(function, torch.zeros(3, 4)))


@pytest.fixture
def modelopt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stand-in for ModelOpt's operator, with its schema."""
    name = "tensorrt::quantize_op"
    library: Any = torch.library.Library("tensorrt", "FRAGMENT")  # type: ignore[no-untyped-call]  # untyped torch API
    library.define(
        "quantize_op(Tensor input, Tensor amax, int num_bits, int exponent_bits, "
        "bool unsigned, bool narrow_range) -> Tensor"
    )

    def rounded(x: Tensor, amax: Tensor, *options: Any) -> Tensor:
        scale = amax / 127
        return (x / scale).round().clamp(-128, 127) * scale

    library.impl("quantize_op", rounded, "CompositeExplicitAutograd")
    library.impl("quantize_op", lambda x, *options: torch.empty_like(x), "Meta")
    monkeypatch.setitem(sys.modules, "modelopt", ModuleType("modelopt"))
    deferred = dict(registry._DEFERRED)
    registry.registered()
    target = torch.ops.tensorrt.quantize_op
    yield target
    registry._CONVERTERS.pop(target.default, None)
    registry._DEFERRED.update({name: deferred[name]})
    library._destroy()


class OfModelOpt(torch.nn.Module):
    def __init__(self, operator: Any, *options: Any) -> None:
        super().__init__()
        self.conv, self.operator = torch.nn.Conv2d(4, 8, 3), operator
        self.options = options or (8, 0, False, False)
        self.register_buffer("amax", torch.tensor(3.0))
        self.register_buffer("channels", self.conv.weight.detach().abs().amax((1, 2, 3), True))

    def forward(self, x: Tensor) -> Any:
        x = self.operator(x, self.amax, *self.options)
        weight = self.operator(self.conv.weight, self.channels, *self.options)
        return torch.nn.functional.conv2d(x, weight, self.conv.bias).relu()


def test_model_of_modelopt_is_compiled(modelopt: Any) -> None:
    model, x = OfModelOpt(modelopt).eval(), torch.randn(2, 4, 9, 9)
    fast = fxtrt.compile(model, (x,), engine="reference", cache_dir=None, min_cluster_size=1)
    torch.testing.assert_close(fast(x), model(x), rtol=1e-5, atol=1e-5)
    (row,) = fxtrt.report(fast).clusters
    assert not fxtrt.report(fast).rejections
    assert row.nodes == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((8, 4, False, False), "float8 is refused: TensorRT 8.6 has none"),
        ((4, 0, False, False), "4 bits with 0 of the exponent are not int8"),
        ((8, 0, True, False), "unsigned integers"),
        ((8, 0, False, True), "narrow_range, and TensorRT clamps to -128"),
    ],
)
def test_other_types_of_modelopt_are_refused(modelopt: Any, options: Any, reason: str) -> None:
    model, x = OfModelOpt(modelopt, *options).eval(), torch.randn(2, 4, 9, 9)
    coverage = fxtrt.report(model, (x,), engine="reference", cache_dir=None)
    assert any(reason in row.detail for row in coverage.rejections)


def test_model_of_torchao_is_compiled() -> None:
    from int8_models import data, residual
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from fxtrt.quantization.quantizer import TensorRTQuantizer

    (x,) = data(1)[0]
    exported = torch.export.export(residual(), (x,)).module(check_guards=False)
    names = [n.name for n in exported.graph.nodes if n.target == torch.ops.aten.relu.default]
    prepared = prepare_pt2e(exported, TensorRTQuantizer(names))
    prepared(x)
    quantized = convert_pt2e(prepared)
    program = torch.export.export(quantized, (x,)).module(check_guards=False)
    for module in program.modules():
        module.training = False  # exported modules have no eval()
    fast = fxtrt.compile(program, (x,), engine="reference", cache_dir=None, min_cluster_size=1)
    torch.testing.assert_close(fast(x), quantized(x), rtol=1e-3, atol=1e-3)
    assert not fxtrt.report(fast).rejections
