"""Reductions, products, normalization, attention, quantization on the reference engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from networkrun import constant, floats, run

from fxtrt.engines.base import EngineBackend

TABLE = torch.arange(1.0, 7.0).reshape(2, 3)


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


def reduce(trt: Any, operation: str, axes: int, keep: bool = False) -> Any:
    def build(net: Any, x: Any) -> Any:
        return net.add_reduce(x, getattr(trt.ReduceOperation, operation), axes, keep).get_output(0)

    return build


@pytest.mark.parametrize(
    ("operation", "rows", "everything"),
    [
        ("SUM", [6, 15], 21),
        ("PROD", [6, 120], 720),
        ("MAX", [3, 6], 6),
        ("MIN", [1, 4], 1),
        ("AVG", [2, 5], 3.5),
    ],
)
def test_reduce_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, operation: str, rows: list[float], everything: float
) -> None:
    assert run(reference, reduce(trt, operation, 0b10), TABLE).tolist() == rows
    assert run(reference, reduce(trt, operation, 0b11), TABLE).item() == everything
    kept = run(reference, reduce(trt, operation, 0b11, keep=True), TABLE)
    assert kept.tolist() == [[everything]]


@pytest.mark.parametrize(
    ("operation", "expected"), [("SUM", [-3, 8]), ("AVG", [-1, 4]), ("PROD", [2, 15])]
)
def test_reduce_of_integers_stays_integer(
    reference: EngineBackend, trt: Any, operation: str, expected: list[int]
) -> None:
    x = torch.tensor([[-1, -2], [3, 5]], dtype=torch.int32)
    result = run(reference, reduce(trt, operation, 0b10), x)
    assert result.dtype == torch.int32
    assert result.tolist() == expected


def test_softmax_does_as_tensorrt_documents(reference: EngineBackend) -> None:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_softmax(x)
        layer.axes = 0b01
        return layer.get_output(0)

    powers = np.exp(TABLE.numpy())
    expected = torch.from_numpy(powers / powers.sum(0, keepdims=True))
    torch.testing.assert_close(run(reference, build, TABLE), expected)


@pytest.mark.parametrize(
    ("exclusive", "backward", "expected"),
    [
        (False, False, [1, 3, 6]),
        (False, True, [6, 5, 3]),
        (True, False, [0, 1, 3]),
        (True, True, [5, 3, 0]),
    ],
)
def test_cumulative_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, exclusive: bool, backward: bool, expected: list[float]
) -> None:
    if not reference.features.has("add_cumulative"):
        pytest.skip("this TensorRT has no cumulative layer")

    def build(net: Any, x: Any) -> Any:
        axis = constant(net, 1, reference.features.shape_dtype)
        operation = trt.CumulativeOperation.SUM
        return net.add_cumulative(x, axis, operation, exclusive, backward).get_output(0)

    assert run(reference, build, TABLE)[0].tolist() == expected


def multiply(trt: Any, first: str, second: str) -> Any:
    def build(net: Any, a: Any, b: Any) -> Any:
        ops = [getattr(trt.MatrixOperation, name) for name in (first, second)]
        return net.add_matrix_multiply(a, ops[0], b, ops[1]).get_output(0)

    return build


@pytest.mark.parametrize(
    ("first", "second", "a", "b"),
    [
        ("NONE", "NONE", (2, 3), (3, 4)),
        ("TRANSPOSE", "NONE", (3, 2), (3, 4)),
        ("NONE", "TRANSPOSE", (2, 3), (4, 3)),
        ("TRANSPOSE", "TRANSPOSE", (3, 2), (4, 3)),
        ("NONE", "NONE", (5, 1, 2, 3), (1, 6, 3, 4)),
    ],
)
def test_matrix_multiply_does_as_tensorrt_documents(
    reference: EngineBackend,
    trt: Any,
    first: str,
    second: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
) -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.standard_normal(shape, dtype=np.float32) for shape in (a, b))
    left = np.swapaxes(x, -1, -2) if first == "TRANSPOSE" else x
    right = np.swapaxes(y, -1, -2) if second == "TRANSPOSE" else y
    result = run(reference, multiply(trt, first, second), torch.from_numpy(x), torch.from_numpy(y))
    torch.testing.assert_close(result, torch.from_numpy(left @ right))


@pytest.mark.parametrize(
    ("first", "second", "a", "b", "equation"),
    [
        ("NONE", "VECTOR", (2, 3), (3,), "ij,j->i"),
        ("TRANSPOSE", "VECTOR", (3, 2), (3,), "ji,j->i"),
        ("VECTOR", "NONE", (3,), (3, 4), "j,jk->k"),
        ("VECTOR", "VECTOR", (3,), (3,), "j,j->"),
        ("NONE", "VECTOR", (5, 2, 3), (5, 3), "bij,bj->bi"),
        ("VECTOR", "NONE", (5, 3), (5, 3, 4), "bj,bjk->bk"),
    ],
)
def test_matrix_multiply_of_vectors(
    reference: EngineBackend,
    trt: Any,
    first: str,
    second: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    equation: str,
) -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.standard_normal(shape, dtype=np.float32) for shape in (a, b))
    result = run(reference, multiply(trt, first, second), torch.from_numpy(x), torch.from_numpy(y))
    expected = torch.from_numpy(np.asarray(np.einsum(equation, x, y)))
    torch.testing.assert_close(result, expected)


def test_einsum_does_as_tensorrt_documents(reference: EngineBackend) -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((2, 3, 4), dtype=np.float32) for _ in range(2))
    result = run(
        reference,
        lambda net, a, b: net.add_einsum([a, b], "bik,bjk->bij").get_output(0),
        torch.from_numpy(a),
        torch.from_numpy(b),
    )
    torch.testing.assert_close(result, torch.from_numpy(a @ b.transpose(0, 2, 1)))


def normalize(method: str, axes: int, groups: int = 1) -> Any:
    def build(net: Any, x: Any, scale: Any, bias: Any) -> Any:
        layer = getattr(net, method)(x, scale, bias, axes)
        layer.epsilon = 0.5
        layer.num_groups = groups
        return layer.get_output(0)

    return build


def normal(x: torch.Tensor, axes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    wide = x.double().numpy()
    centred = wide - wide.mean(axes, keepdims=True)
    normal: np.ndarray[Any, Any] = centred / np.sqrt(np.var(wide, axes, keepdims=True) + 0.5)
    return normal


@pytest.mark.parametrize("axes", [(3,), (1, 2, 3), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_normalization_does_as_tensorrt_documents(
    reference: EngineBackend, axes: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    scale = floats([1, 2, 3, 4]).reshape(1, 4, 1, 1).to(dtype)
    bias = floats([5, 6, 7, 8]).reshape(1, 4, 1, 1).to(dtype)
    mask = sum(1 << axis for axis in axes)
    result = run(reference, normalize("add_normalization", mask), x, scale, bias)
    expected = normal(x, axes) * scale.double().numpy() + bias.double().numpy()
    torch.testing.assert_close(result, torch.from_numpy(expected).to(dtype))


def test_normalization_in_groups(reference: EngineBackend) -> None:
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    scale, bias = floats([2, 3]).reshape(1, 2, 1, 1), floats([5, 6]).reshape(1, 2, 1, 1)
    result = run(reference, normalize("add_normalization", 0b1100, groups=2), x, scale, bias)
    grouped = normal(x.reshape(2, 2, 30), (2,)) * np.array([2, 3]).reshape(1, 2, 1)
    expected = torch.from_numpy(grouped + np.array([5, 6]).reshape(1, 2, 1))
    torch.testing.assert_close(result, expected.reshape(x.shape).float())


def test_normalization_v2_in_groups_scales_channels(reference: EngineBackend) -> None:
    if not reference.features.has("add_normalization_v2"):
        pytest.skip("this TensorRT has no second normalization layer")
    x = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    scale = floats([1, 2, 3, 4]).reshape(1, 4, 1, 1)
    result = run(
        reference, normalize("add_normalization_v2", 0b1100, groups=2), x, scale, scale + 1
    )
    expected = torch.from_numpy(normal(x.reshape(2, 2, 30), (2,))).reshape(x.shape).float()
    torch.testing.assert_close(result, expected * scale + scale + 1)


def test_lrn_as_in_the_documentation(reference: EngineBackend) -> None:
    x = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 2, 2).contiguous()
    result = run(reference, lambda net, x: net.add_lrn(x, 3, 1, 1, 0.1).get_output(0), x)
    expected = floats(0, 0.56603765, 0.4195804, 0.3071672, 0.47430828)
    torch.testing.assert_close(result, expected.reshape(1, 5, 1, 1).expand(1, 5, 2, 2))


def attend(trt: Any, causal: str = "NONE", masked: bool = False) -> Any:
    def build(net: Any, q: Any, k: Any, v: Any, *mask: Any) -> Any:
        softmax = trt.AttentionNormalizationOp.SOFTMAX
        kind = getattr(trt.CausalMaskKind, causal)
        attention = net.add_attention_v2(q, k, v, softmax, kind)
        if masked:
            attention.mask = mask[0]
        return attention.get_output(0)

    return build


@pytest.mark.parametrize("mask", ["NONE", "UPPER_LEFT", "LOWER_RIGHT", "bool", "float"])
def test_attention_does_not_scale(reference: EngineBackend, trt: Any, mask: str) -> None:
    if not reference.features.has("add_attention_v2"):
        pytest.skip("this TensorRT has no attention")
    generator = np.random.default_rng(0)
    q, k, v = (
        generator.standard_normal((1, 2, length, 4), dtype=np.float32) for length in (3, 5, 5)
    )
    row, column = np.arange(3)[:, None], np.arange(5)[None, :]
    offset = {"UPPER_LEFT": 0, "LOWER_RIGHT": 2}.get(mask, 5)
    visible = column <= row + offset if mask != "bool" else (row + column) % 2 == 0
    added = np.float32(0.3) * column * row if mask == "float" else np.float32(0)
    scores = np.where(visible, q @ k.swapaxes(-1, -2) + added, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = torch.from_numpy(weights / weights.sum(-1, keepdims=True) @ v)
    extra = {"bool": visible, "float": added.astype(np.float32)}.get(mask)
    masks = [] if extra is None else [torch.from_numpy(np.broadcast_to(extra, (1, 2, 3, 5)).copy())]
    causal = mask if mask.isupper() else "NONE"
    result = run(
        reference, attend(trt, causal, bool(masks)), *map(torch.from_numpy, (q, k, v)), *masks
    )
    torch.testing.assert_close(result, expected.float())


def to(trt: Any, name: str) -> list[Any]:
    """The output type argument of the quantization layers, where the method takes one."""
    takes = "output_type" in trt.INetworkDefinition.add_quantize.__doc__
    return [getattr(trt.DataType, name)] if takes else []


def test_quantize_rounds_half_to_even_and_clamps(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any) -> tuple[Any, Any]:
        scale = constant(net, 0.5, torch.float32)
        small = net.add_quantize(x, scale, *to(trt, "INT8")).get_output(0)
        return small, net.add_dequantize(small, scale, *to(trt, "FLOAT")).get_output(0)

    small, back = run(reference, build, floats(0.25, 0.75, -1.25, 100, -100))
    assert small.dtype == torch.int8
    assert small.tolist() == [0, 2, -2, 127, -128]
    assert back.tolist() == [0, 1, -1, 63.5, -64]


def test_quantize_by_channel(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any) -> tuple[Any, Any]:
        scale = constant(net, [1.0, 10.0], torch.float32)
        layer = net.add_quantize(x, scale, *to(trt, "INT8"))
        layer.axis = 1
        back = net.add_dequantize(layer.get_output(0), scale, *to(trt, "FLOAT"))
        back.axis = 1
        return layer.get_output(0), back.get_output(0)

    small, back = run(reference, build, floats([[7, 70], [14, 140]]))
    assert small.tolist() == [[7, 7], [14, 14]]
    assert back.tolist() == [[7, 70], [14, 140]]
