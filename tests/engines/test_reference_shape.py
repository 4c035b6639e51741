"""Layers that move elements or read sizes, on the reference engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networkrun import constant, floats, load, run

from fxtrt.engines.base import EngineBackend
from fxtrt.errors import EngineError

TABLE = torch.arange(6.0).reshape(2, 3)
ROW = torch.tensor([10.0, 20.0, 30.0])


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


@pytest.fixture
def shape_dtype(reference: EngineBackend) -> torch.dtype:
    return reference.features.shape_dtype


def shuffle(**attributes: Any) -> Any:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_shuffle(x)
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer.get_output(0)

    return build


def test_shuffle_transposes(reference: EngineBackend) -> None:
    result = run(reference, shuffle(first_transpose=(1, 0)), TABLE)
    assert result.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_shuffle_transposes_then_reshapes_then_transposes(reference: EngineBackend) -> None:
    build = shuffle(first_transpose=(1, 0), reshape_dims=(2, 3), second_transpose=(1, 0))
    # [[0 3] [1 4] [2 5]] -> [[0 3 1] [4 2 5]] -> its transpose.
    assert run(reference, build, TABLE).tolist() == [[0, 4], [3, 2], [1, 5]]


@pytest.mark.parametrize(
    ("sizes", "expected"), [((-1,), (6,)), ((0, -1, 1), (2, 3, 1)), ((3, -1), (3, 2))]
)
def test_shuffle_places_sizes(
    reference: EngineBackend, sizes: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert run(reference, shuffle(reshape_dims=sizes), TABLE).shape == expected


def test_shuffle_to_a_scalar_and_back(reference: EngineBackend) -> None:
    assert run(reference, shuffle(reshape_dims=()), floats([7.0])).shape == ()
    assert run(reference, shuffle(reshape_dims=(1, 1)), torch.tensor(7.0)).tolist() == [[7]]


def test_shuffle_with_a_shape_tensor(reference: EngineBackend, shape_dtype: torch.dtype) -> None:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_shuffle(x)
        sizes = net.add_shape(x).get_output(0)
        back = net.add_slice(sizes, (1,), (2,), (-1,)).get_output(0)
        layer.set_input(1, back)
        return layer.get_output(0)

    result = run(reference, build, TABLE, dynamic=True)
    assert result.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_shape_does_as_tensorrt_documents(
    reference: EngineBackend, shape_dtype: torch.dtype
) -> None:
    result = run(reference, lambda net, x: net.add_shape(x).get_output(0), TABLE, dynamic=True)
    assert result.dtype == shape_dtype
    assert result.tolist() == [2, 3]


def test_concatenation_does_as_tensorrt_documents(reference: EngineBackend) -> None:
    def build(net: Any, a: Any, b: Any) -> Any:
        layer = net.add_concatenation([a, b])
        layer.axis = 1
        return layer.get_output(0)

    assert run(reference, build, TABLE, floats([[8], [9]])).tolist() == [
        [0, 1, 2, 8],
        [3, 4, 5, 9],
    ]


def slice_(mode: Any, start: int, size: int, stride: int = 1, fill: float | None = None) -> Any:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_slice(x, (start,), (size,), (stride,))
        layer.mode = mode
        if fill is not None:
            layer.set_input(4, constant(net, fill, torch.float32))
        return layer.get_output(0)

    return build


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("CLAMP", [10, 10, 10, 10, 20, 30, 30, 30]),
        ("WRAP", [10, 20, 30, 10, 20, 30, 10, 20]),
        ("REFLECT", [20, 30, 20, 10, 20, 30, 20, 10]),
        ("FILL", [-1, -1, -1, 10, 20, 30, -1, -1]),
    ],
)
def test_slice_outside_the_bounds(
    reference: EngineBackend, trt: Any, mode: str, expected: list[float]
) -> None:
    build = slice_(getattr(trt.SampleMode, mode), -3, 8, fill=-1.0 if mode == "FILL" else None)
    assert run(reference, build, ROW).tolist() == expected


def test_slice_fills_with_zero_by_default(reference: EngineBackend, trt: Any) -> None:
    build = slice_(trt.SampleMode.FILL, 1, 3)
    assert run(reference, build, ROW).tolist() == [20, 30, 0]


def test_slice_reflects_a_single_element(reference: EngineBackend, trt: Any) -> None:
    build = slice_(trt.SampleMode.REFLECT, -1, 3)
    assert run(reference, build, floats([5.0])).tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((0, 2, 2), [10, 30]),
        ((2, 3, -1), [30, 20, 10]),
        ((2, 2, -2), [30, 10]),
        ((1, 4, 0), [20, 20, 20, 20]),
        ((1, 1, 1), [20]),
    ],
)
def test_slice_with_strides(
    reference: EngineBackend, trt: Any, window: tuple[int, int, int], expected: list[float]
) -> None:
    assert run(reference, slice_(trt.SampleMode.STRICT_BOUNDS, *window), ROW).tolist() == expected


def test_slice_in_two_dimensions(reference: EngineBackend) -> None:
    x = floats([[0, 2, 4], [1, 3, 5]])
    result = run(reference, lambda n, x: n.add_slice(x, (1, 0), (1, 2), (1, 2)).get_output(0), x)
    assert result.tolist() == [[1, 5]]


def test_slice_along_axes(reference: EngineBackend, trt: Any) -> None:
    if not hasattr(trt.ISliceLayer, "axes"):
        pytest.skip("this TensorRT has no slice axes")

    def build(net: Any, x: Any) -> Any:
        layer = net.add_slice(x, (1,), (2,), (1,))
        layer.axes = (1,)
        return layer.get_output(0)

    assert run(reference, build, floats([[0, 2, 4], [1, 3, 5]])).tolist() == [[2, 4], [3, 5]]


def test_slice_with_a_dynamic_window(reference: EngineBackend, shape_dtype: torch.dtype) -> None:
    def build(net: Any, x: Any, start: Any, size: Any, stride: Any) -> Any:
        layer = net.add_slice(x, (0,), (1,), (1,))
        for slot, tensor in enumerate((start, size, stride), start=1):
            layer.set_input(slot, tensor)
        return layer.get_output(0)

    window = [torch.tensor([n], dtype=shape_dtype) for n in (2, 2, -2)]
    assert run(reference, build, ROW, *window).tolist() == [30, 10]


def test_slice_beyond_strict_bounds_fails(
    reference: EngineBackend, shape_dtype: torch.dtype
) -> None:
    def build(net: Any, x: Any, start: Any) -> Any:
        layer = net.add_slice(x, (0,), (2,), (1,))
        layer.set_input(1, start)
        return layer.get_output(0)

    start = torch.tensor([2], dtype=shape_dtype)
    engine = load(reference, build, ROW, start)
    with pytest.raises(EngineError, match="start 2, size 2, stride 1 leave axis 0 of 3"):
        engine.run([ROW, start])


def test_padding_adds_zeros_and_crops(reference: EngineBackend) -> None:
    x = TABLE.reshape(1, 1, 2, 3)
    result = run(reference, lambda n, x: n.add_padding_nd(x, (1, -1), (0, 2)).get_output(0), x)
    assert result[0, 0].tolist() == [[0, 0, 0, 0], [1, 2, 0, 0], [4, 5, 0, 0]]


def test_squeeze_and_unsqueeze(reference: EngineBackend, shape_dtype: torch.dtype) -> None:
    if not reference.features.has("add_squeeze"):
        pytest.skip("this TensorRT has no squeeze layer")

    def build(net: Any, x: Any) -> tuple[Any, Any]:
        more = net.add_unsqueeze(x, constant(net, [-1, 0], shape_dtype)).get_output(0)
        less = net.add_squeeze(more, constant(net, [0], shape_dtype)).get_output(0)
        return more, less

    more, less = run(reference, build, TABLE)
    assert more.shape == (1, 2, 3, 1)
    assert less.shape == (2, 3, 1)


def test_reverse_sequence_does_as_tensorrt_documents(reference: EngineBackend) -> None:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_reverse_sequence(x, constant(net, [2, 3], torch.int32))
        layer.batch_axis, layer.sequence_axis = 0, 1
        return layer.get_output(0)

    assert run(reference, build, TABLE).tolist() == [[1, 0, 2], [5, 4, 3]]


def test_fill_with_static_numbers(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any) -> Any:
        layer = net.add_fill((4,), trt.FillOperation.LINSPACE)
        layer.alpha, layer.beta = 1.0, 0.5
        return layer.get_output(0)

    assert run(reference, build).tolist() == [1, 1.5, 2, 2.5]


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32])
def test_fill_with_dynamic_numbers(
    reference: EngineBackend, trt: Any, shape_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    def build(net: Any, x: Any) -> Any:
        takes = "output_type" in trt.INetworkDefinition.add_fill.__doc__
        kind = [reference.features.to_trt(dtype)] if takes else []
        layer = net.add_fill((1, 1), trt.FillOperation.LINSPACE, *kind)
        layer.set_input(0, net.add_shape(x).get_output(0))
        layer.set_input(1, constant(net, 5, dtype))
        layer.set_input(2, constant(net, [10, 1], dtype))
        return layer.get_output(0)

    result = run(reference, build, TABLE, dynamic=True)
    assert result.dtype == dtype
    assert result.tolist() == [[5, 6, 7], [15, 16, 17]]
