"""TensorRT 8.6 computes in int8 only what has no precision of its own."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from fxtrt.conversion.context import Context
from fxtrt.converters.quantization import round_trip
from fxtrt.engines.features import Features
from fxtrt.engines.network import Network
from fxtrt.engines.weak_typing import constrain_precision, settle_types, type_of

FLOAT, HALF, INT8, INT32 = "FLOAT", "HALF", "INT8", "INT32"
TYPES = (
    *("QUANTIZE", "DEQUANTIZE", "CONVOLUTION", "ELEMENTWISE"),
    *("ACTIVATION", "CAST", "CONSTANT", "SOFTMAX"),
)


def old_tensorrt() -> Any:
    """As much of TensorRT 8.6 as weak typing asks for."""
    trt = SimpleNamespace(__name__="tensorrt", __version__="8.6.1")
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)
    trt.LayerType = SimpleNamespace(**{name: name for name in TYPES})
    trt.DataType = SimpleNamespace(__members__={n: n for n in (FLOAT, HALF, INT8, INT32)})
    trt.BuilderFlag = SimpleNamespace(FP16="FP16", INT8="INT8", OBEY_PRECISION_CONSTRAINTS="OBEY")
    trt.ICastLayer = trt.IConstantLayer = Layer
    return trt


class Tensor:
    def __init__(self, dtype: str = FLOAT) -> None:
        self.dtype = dtype


class Layer:
    """A layer whose float outputs read as float32, as all do in 8.6."""

    def __init__(self, kind: str, *inputs: Tensor, dtype: str = FLOAT, to: str = FLOAT) -> None:
        self.type, self._inputs, self._output = kind, inputs, Tensor(dtype)
        self.num_inputs, self.num_outputs = len(inputs), 1
        self.to_type, self.weights = to, SimpleNamespace(dtype="float32")
        self.precision: str | None = None
        self.output_types: list[str] = []

    def get_input(self, index: int) -> Tensor:
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self._output

    def set_output_type(self, index: int, dtype: str) -> None:
        self.output_types.append(dtype)

    @property
    def result(self) -> Tensor:
        return self._output


def settled(layers: Sequence[Layer], types: dict[Any, Any]) -> tuple[Network, set[str]]:
    """The network after its types are settled, and the builder's flags."""
    definition = SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i])
    network = Network(Features(old_tensorrt()), None, definition, types=types)
    settle_types(network, 0)
    flags = set[str]()
    constrain_precision(network, SimpleNamespace(set_flag=flags.add))
    return network, flags


def test_what_lies_between_quantizers_has_no_precision() -> None:
    x = Tensor()
    to_half = Layer("CAST", x, to=HALF)
    quantize = Layer("QUANTIZE", to_half.result, dtype=INT8)
    dequantize = Layer("DEQUANTIZE", quantize.result)
    convolution = Layer("CONVOLUTION", dequantize.result)
    add = Layer("ELEMENTWISE", convolution.result, to_half.result)
    relu = Layer("ACTIVATION", add.result)
    other = Layer("CONVOLUTION", relu.result)
    softmax = Layer("SOFTMAX", Tensor())
    layers = [to_half, quantize, dequantize, convolution, add, relu, other, softmax]
    network, flags = settled(layers, {dequantize.result: HALF})
    assert flags == {"INT8", "FP16", "OBEY"}
    assert [layer.precision for layer in layers] == [None] * 6 + [HALF, FLOAT]
    # Casts are still decided by the types that the graph says.
    assert [type_of(network, layer.result) for layer in (convolution, relu, other)] == [HALF] * 3


def test_float16_without_quantizers_is_as_before() -> None:
    to_half = Layer("CAST", Tensor(), to=HALF)
    convolution = Layer("CONVOLUTION", to_half.result)
    _, flags = settled([to_half, convolution], {})
    assert flags == {"FP16", "OBEY"}
    assert convolution.precision == HALF
    assert convolution.output_types == [HALF]


def test_quantizers_in_float32_need_no_float16() -> None:
    quantize = Layer("QUANTIZE", Tensor(), dtype=INT8)
    dequantize = Layer("DEQUANTIZE", quantize.result)
    _, flags = settled([quantize, dequantize, Layer("CONVOLUTION", dequantize.result)], {})
    assert flags == {"INT8"}


@pytest.mark.parametrize("axis", [None, 0])
def test_layers_of_a_quantizer_take_no_type(axis: int | None) -> None:
    network = Network(Features(old_tensorrt()), None, MagicMock(num_layers=0))
    ctx = Context(network)
    x, scale = Tensor(), torch.tensor(0.25 if axis is None else [0.25, 0.5])
    network.types[x] = HALF
    result = round_trip(ctx, x, scale, axis)
    for add in (ctx.net.add_quantize, ctx.net.add_dequantize):
        (call,) = add.call_args_list
        assert len(call.args) == 2
    # The scale is float32 in 8.6, whatever the tensor is.
    assert [c.args[1].dtype.name for c in ctx.net.add_constant.call_args_list] == ["float32"]
    assert network.types[result] == HALF
    if axis is not None:
        assert ctx.net.add_quantize.return_value.axis == axis
        assert ctx.net.add_dequantize.return_value.axis == axis
