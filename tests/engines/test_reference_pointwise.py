"""Element by element layers on the reference engine, against formulas from TensorRT's reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from networkrun import constant, floats, load, run

from fxtrt.engines.base import EngineBackend
from fxtrt.errors import EngineError

X = [-3.0, -0.5, 0.0, 0.25, 2.0]
ALPHA, BETA = 0.3, 1.7


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


ACTIVATIONS: dict[str, Callable[[float], float]] = {
    "RELU": lambda x: max(0, x),
    "SIGMOID": lambda x: 1 / (1 + math.exp(-x)),
    "TANH": math.tanh,
    "LEAKY_RELU": lambda x: x if x >= 0 else ALPHA * x,
    "ELU": lambda x: x if x >= 0 else ALPHA * (math.exp(x) - 1),
    "SELU": lambda x: BETA * x if x > 0 else BETA * (ALPHA * math.exp(x) - ALPHA),
    "SOFTSIGN": lambda x: x / (1 + abs(x)),
    "SOFTPLUS": lambda x: ALPHA * math.log(math.exp(BETA * x) + 1),
    "CLIP": lambda x: max(ALPHA, min(BETA, x)),
    "HARD_SIGMOID": lambda x: max(0, min(1, ALPHA * x + BETA)),
    "SCALED_TANH": lambda x: ALPHA * math.tanh(BETA * x),
    "THRESHOLDED_RELU": lambda x: x if x > ALPHA else 0,
    "GELU_ERF": lambda x: 0.5 * x * (1 + math.erf(math.sqrt(0.5) * x)),
    "GELU_TANH": lambda x: (
        0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (0.044715 * x**3 + x)))
    ),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_activation_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, kind: str, dtype: torch.dtype
) -> None:
    if not reference.features.member("ActivationType", kind):
        pytest.skip(f"this TensorRT has no {kind}")

    def build(net: Any, x: Any) -> Any:
        layer = net.add_activation(x, getattr(trt.ActivationType, kind))
        layer.alpha, layer.beta = ALPHA, BETA
        return layer.get_output(0)

    expected = torch.tensor([ACTIVATIONS[kind](x) for x in X], dtype=dtype)
    torch.testing.assert_close(run(reference, build, torch.tensor(X, dtype=dtype)), expected)


def test_clip_between_crossing_bounds_gives_the_lower_one(
    reference: EngineBackend, trt: Any
) -> None:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_activation(x, trt.ActivationType.CLIP)
        layer.alpha, layer.beta = 1.0, 0.5
        return layer.get_output(0)

    assert run(reference, build, floats(X)).tolist() == [max(1.0, min(0.5, x)) for x in X]


def test_every_activation_is_tested(trt: Any) -> None:
    assert set(trt.ActivationType.__members__) <= set(ACTIVATIONS)


def binary(trt: Any, operation: str) -> Any:
    def build(net: Any, a: Any, b: Any) -> Any:
        op = getattr(trt.ElementWiseOperation, operation)
        return net.add_elementwise(a, b, op).get_output(0)

    return build


BINARY: dict[str, list[Any]] = {
    "SUM": [-5, 9, 2.5],
    "PROD": [-14.0, 14, 1],
    "MAX": [2.0, 7, 2],
    "MIN": [-7, 2, 0.5],
    "SUB": [-9, 5, 1.5],
    "DIV": [-3.5, 3.5, 4],
    "POW": [49, 49, math.sqrt(2)],
    "FLOOR_DIV": [-4.0, 3, 4],
    "EQUAL": [False, False, False],
    "GREATER": [False, True, True],
    "LESS": [True, False, False],
}


@pytest.mark.parametrize("operation", BINARY)
def test_elementwise_on_floats(reference: EngineBackend, trt: Any, operation: str) -> None:
    result = run(reference, binary(trt, operation), floats(-7, 7, 2), floats(2, 2, 0.5))
    torch.testing.assert_close(result, torch.tensor(BINARY[operation]))


@pytest.mark.parametrize(
    ("operation", "expected"),
    [("DIV", [-3, 3]), ("FLOOR_DIV", [-4, 3]), ("POW", [49, 49]), ("EQUAL", [False, False])],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_elementwise_on_integers(
    reference: EngineBackend, trt: Any, operation: str, expected: list[Any], dtype: torch.dtype
) -> None:
    if dtype not in reference.features.dtypes:
        pytest.skip(f"this TensorRT has no {dtype}")
    a, b = torch.tensor([-7, 7], dtype=dtype), torch.tensor([2, 2], dtype=dtype)
    assert run(reference, binary(trt, operation), a, b).tolist() == expected


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("AND", [False, False, False, True]),
        ("OR", [False, True, True, True]),
        ("XOR", [False, True, True, False]),
        ("EQUAL", [True, False, False, True]),
    ],
)
def test_elementwise_on_bools(
    reference: EngineBackend, trt: Any, operation: str, expected: list[bool]
) -> None:
    a, b = torch.tensor([False, False, True, True]), torch.tensor([False, True, False, True])
    assert run(reference, binary(trt, operation), a, b).tolist() == expected


def test_every_elementwise_operation_is_tested(trt: Any) -> None:
    assert set(trt.ElementWiseOperation.__members__) == {*BINARY, "AND", "OR", "XOR"}


def test_elementwise_broadcasts_ones(reference: EngineBackend, trt: Any) -> None:
    result = run(reference, binary(trt, "SUM"), floats([[1], [2]]), floats([[10, 20]]))
    assert result.tolist() == [[11, 21], [12, 22]]


def test_floor_division_is_the_floor_of_the_quotient(reference: EngineBackend, trt: Any) -> None:
    # In float32, 1 / 0.1 rounds to 10, although 0.1 is a little more than a tenth.
    assert run(reference, binary(trt, "FLOOR_DIV"), floats([1.0]), floats([0.1])).tolist() == [10]


UNARY: dict[str, tuple[list[float], Callable[[Any], Any]]] = {
    "EXP": (X, np.exp),
    "LOG": ([0.5, 2, 10], np.log),
    "SQRT": ([0, 2, 9], np.sqrt),
    "RECIP": ([-2, 0.5, 4], lambda x: 1 / x),
    "ABS": (X, np.abs),
    "NEG": (X, np.negative),
    "SIN": (X, np.sin),
    "COS": (X, np.cos),
    "TAN": (X, np.tan),
    "SINH": (X, np.sinh),
    "COSH": (X, np.cosh),
    "ASIN": ([-1, 0.5, 1], np.arcsin),
    "ACOS": ([-1, 0.5, 1], np.arccos),
    "ATAN": (X, np.arctan),
    "ASINH": (X, np.arcsinh),
    "ACOSH": ([1, 2, 10], np.arccosh),
    "ATANH": ([-0.5, 0, 0.9], np.arctanh),
    "CEIL": ([-1.5, -0.2, 1.2], np.ceil),
    "FLOOR": ([-1.5, -0.2, 1.2], np.floor),
    "ERF": (X, np.vectorize(math.erf)),
    "SIGN": (X, np.sign),
    "ROUND": ([-2.5, -1.5, 0.5, 1.5, 2.4], np.rint),
    "ISINF": ([-math.inf, 0, math.inf, math.nan], np.isinf),
    "ISNAN": ([-math.inf, 0, math.nan], np.isnan),
}


def unary(trt: Any, operation: str) -> Any:
    return lambda net, x: net.add_unary(x, getattr(trt.UnaryOperation, operation)).get_output(0)


@pytest.mark.parametrize("operation", UNARY)
def test_unary_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, operation: str
) -> None:
    if not reference.features.member("UnaryOperation", operation):
        pytest.skip(f"this TensorRT has no {operation}")
    values, function = UNARY[operation]
    expected = torch.from_numpy(np.asarray(function(np.array(values, dtype=np.float64))))
    expected = expected if expected.dtype == torch.bool else expected.float()
    torch.testing.assert_close(run(reference, unary(trt, operation), floats(values)), expected)


def test_every_unary_operation_is_tested(trt: Any) -> None:
    assert set(trt.UnaryOperation.__members__) <= {*UNARY, "NOT"}


def test_not_does_as_tensorrt_documents(reference: EngineBackend, trt: Any) -> None:
    assert run(reference, unary(trt, "NOT"), torch.tensor([True, False])).tolist() == [False, True]


def test_unary_on_integers(reference: EngineBackend, trt: Any) -> None:
    x = torch.tensor([-3, 0, 4], dtype=torch.int32)
    assert run(reference, unary(trt, "NEG"), x).tolist() == [3, 0, -4]
    assert run(reference, unary(trt, "ABS"), x).tolist() == [3, 0, 4]
    assert run(reference, unary(trt, "SIGN"), x).tolist() == [-1, 0, 1]


def test_select_does_as_tensorrt_documents(reference: EngineBackend) -> None:
    condition = torch.tensor([[True], [False]])
    result = run(
        reference,
        lambda net, c, a, b: net.add_select(c, a, b).get_output(0),
        condition,
        floats([[1, 2]]),
        floats([[10, 20]]),
    )
    assert result.tolist() == [[1, 2], [10, 20]]


def test_parametric_relu_does_as_tensorrt_documents(reference: EngineBackend) -> None:
    result = run(
        reference,
        lambda net, x, slope: net.add_parametric_relu(x, slope).get_output(0),
        floats([[-1, -1], [2, -4]]),
        floats([[0.5, 2]]),
    )
    assert result.tolist() == [[-0.5, -2], [2, -8]]


def test_identity_copies(reference: EngineBackend) -> None:
    x = floats(1, 2)
    assert run(reference, lambda net, x: net.add_identity(x).get_output(0), x).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (floats(-1.7, 0, 2.9), torch.int32, [-1, 0, 2]),
        (floats(-1.7, 0, 0.1), torch.bool, [True, False, True]),
        (torch.tensor([True, False]), torch.float32, [1, 0]),
        (torch.tensor([3, -3], dtype=torch.int32), torch.float16, [3, -3]),
    ],
)
def test_cast_does_as_tensorrt_documents(
    reference: EngineBackend, source: torch.Tensor, target: torch.dtype, expected: list[Any]
) -> None:
    dtype = reference.features.to_trt(target)
    result = run(reference, lambda net, x: net.add_cast(x, dtype).get_output(0), source)
    assert result.dtype == target
    assert result.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int32, torch.bool])
def test_constant_does_as_tensorrt_documents(reference: EngineBackend, dtype: torch.dtype) -> None:
    values = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    result = run(reference, lambda net: constant(net, values, dtype))
    torch.testing.assert_close(result, values)


@pytest.mark.parametrize(
    ("mode", "scale", "expected"),
    [
        ("UNIFORM", [2], [9, 25, 49, 81]),
        ("CHANNEL", [2, 3], [9, 25, 100, 169]),
        ("ELEMENTWISE", [1, 2, 3, 4], [4, 25, 100, 289]),
    ],
)
def test_scale_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, mode: str, scale: list[float], expected: list[float]
) -> None:
    count = len(scale)
    weights = [floats(scale), torch.ones(count), torch.full((count,), 2.0)]

    def build(net: Any, x: Any) -> Any:
        scale, shift, power = (w.numpy() for w in weights)
        kind = getattr(trt.ScaleMode, mode)
        return net.add_scale_nd(x, kind, shift, scale, power, 1).get_output(0)

    x = floats([1, 2, 3, 4]).reshape(1, 2, 2, 1)
    assert run(reference, build, x).flatten().tolist() == expected


def test_scale_defaults_to_nothing(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any) -> Any:
        none = trt.Weights()
        shift = np.array([1.0], dtype=np.float32)
        return net.add_scale(x, trt.ScaleMode.UNIFORM, shift, none, none).get_output(0)

    assert run(reference, build, torch.zeros(1, 1, 1, 2)).flatten().tolist() == [1, 1]


def test_an_assertion_that_fails_raises(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any) -> Any:
        size = net.add_slice(net.add_shape(x).get_output(0), (0,), (1,), (1,)).get_output(0)
        dtype = reference.features.shape_dtype
        two = constant(net, [2], dtype)
        equal = net.add_elementwise(size, two, trt.ElementWiseOperation.EQUAL).get_output(0)
        net.add_assertion(equal, "two rows are needed")
        return net.add_identity(x).get_output(0)

    engine = load(reference, build, floats(1, 2), dynamic=True)
    assert engine.run([floats(1, 2)])[0].tolist() == [1, 2]
    with pytest.raises(EngineError, match=r"ASSERTION.*two rows are needed"):
        engine.run([floats(1, 2, 3)])
