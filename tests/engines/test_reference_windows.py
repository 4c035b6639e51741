"""CONVOLUTION, DECONVOLUTION and POOLING on the reference engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networkrun import floats, run

from fxtrt.engines.base import EngineBackend

ROW = torch.arange(1.0, 6.0).reshape(1, 1, 1, 5)


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


def convolve(kernel: torch.Tensor, bias: torch.Tensor | None = None, **attributes: Any) -> Any:
    def build(net: Any, x: Any) -> Any:
        args = [] if bias is None else [bias.numpy()]
        maps = kernel.shape[0]
        layer = net.add_convolution_nd(x, maps, kernel.shape[2:], kernel.numpy(), *args)
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer.get_output(0)

    return build


def deconvolve(kernel: torch.Tensor, maps: int, bias: Any = None, **attributes: Any) -> Any:
    def build(net: Any, x: Any) -> Any:
        args = [] if bias is None else [bias.numpy()]
        layer = net.add_deconvolution_nd(x, maps, kernel.shape[2:], kernel.numpy(), *args)
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer.get_output(0)

    return build


def pool(trt: Any, kind: str, size: tuple[int, ...], **attributes: Any) -> Any:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_pooling_nd(x, getattr(trt.PoolingType, kind), size)
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer.get_output(0)

    return build


def test_convolution_correlates(reference: EngineBackend) -> None:
    kernel = floats([1, 10]).reshape(1, 1, 1, 2)
    result = run(reference, convolve(kernel, floats([0.5])), ROW)
    assert result.flatten().tolist() == [21.5, 32.5, 43.5, 54.5]


def test_convolution_with_stride_dilation_and_asymmetric_padding(reference: EngineBackend) -> None:
    build = convolve(
        floats([1, 10]).reshape(1, 1, 1, 2),
        stride_nd=(1, 2),
        dilation_nd=(1, 2),
        pre_padding=(0, 1),
        post_padding=(0, 2),
    )
    # 0 1 2 3 4 5 0 0: pairs two apart, every second one.
    assert run(reference, build, ROW).flatten().tolist() == [20, 42, 4]


def test_convolution_in_groups(reference: EngineBackend) -> None:
    x = floats([[2, 3, 5, 7]]).reshape(1, 4, 1, 1)
    kernel = floats([[1, 10], [1, -1]]).reshape(2, 2, 1, 1)
    result = run(reference, convolve(kernel, num_groups=2), x)
    assert result.flatten().tolist() == [32, -2]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("EXPLICIT_ROUND_DOWN", [6, 12]),
        ("EXPLICIT_ROUND_UP", [6, 12, 11]),
        ("SAME_UPPER", [6, 12, 11]),
        ("SAME_LOWER", [3, 9, 15]),
    ],
)
def test_padding_modes_of_convolution(
    reference: EngineBackend, trt: Any, mode: str, expected: list[float]
) -> None:
    x = torch.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    build = convolve(
        torch.ones(1, 1, 1, 3), stride_nd=(1, 2), padding_mode=getattr(trt.PaddingMode, mode)
    )
    assert run(reference, build, x).flatten().tolist() == expected


def test_convolution_in_three_dimensions(reference: EngineBackend) -> None:
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert run(reference, convolve(torch.ones(1, 1, 2, 2, 2)), x).flatten().tolist() == [28]


def test_kernel_and_bias_as_tensors(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any, kernel: Any, bias: Any) -> Any:
        layer = net.add_convolution_nd(x, 1, (1, 2), trt.Weights())
        layer.set_input(1, kernel)
        layer.set_input(2, bias)
        return layer.get_output(0)

    kernel = floats([1, 10]).reshape(1, 1, 1, 2)
    result = run(reference, build, ROW, kernel, floats([0.5]))
    assert result.flatten().tolist() == [21.5, 32.5, 43.5, 54.5]


def test_convolution_in_half_precision(reference: EngineBackend) -> None:
    kernel = floats([1, 10]).reshape(1, 1, 1, 2).half()
    result = run(reference, convolve(kernel), ROW.half())
    assert result.dtype == torch.float16
    assert result.flatten().tolist() == [21, 32, 43, 54]


def test_deconvolution_spreads(reference: EngineBackend) -> None:
    x = floats([1, 2]).reshape(1, 1, 1, 2)
    kernel = floats([1, 10, 100]).reshape(1, 1, 1, 3)
    build = deconvolve(kernel, 1, floats([0.5]), stride_nd=(1, 2))
    assert run(reference, build, x).flatten().tolist() == [1.5, 10.5, 102.5, 20.5, 200.5]


def test_deconvolution_cuts_its_padding(reference: EngineBackend) -> None:
    x = floats([1, 2]).reshape(1, 1, 1, 2)
    kernel = floats([1, 10, 100]).reshape(1, 1, 1, 3)
    build = deconvolve(kernel, 1, stride_nd=(1, 2), pre_padding=(0, 1), post_padding=(0, 2))
    assert run(reference, build, x).flatten().tolist() == [10, 102]


def test_deconvolution_in_groups(reference: EngineBackend) -> None:
    x = floats([2, 3]).reshape(1, 2, 1, 1)
    kernel = floats([[1, 10], [100, 1000]]).reshape(2, 2, 1, 1)
    result = run(reference, deconvolve(kernel, 4, num_groups=2), x)
    assert result.flatten().tolist() == [2, 20, 300, 3000]


def test_max_pooling_never_picks_padding(reference: EngineBackend, trt: Any) -> None:
    build = pool(trt, "MAX", (1, 2), stride_nd=(1, 2), padding_nd=(0, 1))
    assert run(reference, build, -ROW).flatten().tolist() == [-1, -2, -4]


def test_max_pooling_with_more_padding_than_half_the_window(
    reference: EngineBackend, trt: Any
) -> None:
    build = pool(trt, "MAX", (1, 3), pre_padding=(0, 2), post_padding=(0, 0))
    assert run(reference, build, ROW).flatten().tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("mode", "expected"), [("DOWN", [2, 4]), ("UP", [2, 4, 5])])
def test_rounding_of_pooling(
    reference: EngineBackend, trt: Any, mode: str, expected: list[float]
) -> None:
    rounding = getattr(trt.PaddingMode, f"EXPLICIT_ROUND_{mode}")
    build = pool(trt, "MAX", (1, 2), stride_nd=(1, 2), padding_mode=rounding)
    assert run(reference, build, ROW).flatten().tolist() == expected


@pytest.mark.parametrize(
    ("excludes", "expected"), [(True, [1, 2.5, 4.5]), (False, [0.5, 2.5, 4.5])]
)
def test_average_pooling_counts_padding_or_not(
    reference: EngineBackend, trt: Any, excludes: bool, expected: list[float]
) -> None:
    build = pool(
        trt,
        "AVERAGE",
        (1, 2),
        stride_nd=(1, 2),
        pre_padding=(0, 1),
        average_count_excludes_padding=excludes,
    )
    assert run(reference, build, ROW).flatten().tolist() == expected


def test_average_pooling_never_counts_what_rounding_up_adds(
    reference: EngineBackend, trt: Any
) -> None:
    build = pool(
        trt,
        "AVERAGE",
        (1, 2),
        stride_nd=(1, 2),
        padding_mode=trt.PaddingMode.EXPLICIT_ROUND_UP,
        average_count_excludes_padding=False,
    )
    assert run(reference, build, ROW).flatten().tolist() == [1.5, 3.5, 5]


def test_blended_pooling_does_as_tensorrt_documents(reference: EngineBackend, trt: Any) -> None:
    build = pool(trt, "MAX_AVERAGE_BLEND", (1, 5), blend_factor=0.25)
    assert run(reference, build, ROW).item() == 0.75 * 5 + 0.25 * 3


def test_pooling_in_three_dimensions(reference: EngineBackend, trt: Any) -> None:
    x = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    assert run(reference, pool(trt, "MAX", (2, 2, 2)), x).item() == 7
    assert run(reference, pool(trt, "AVERAGE", (2, 2, 2)), x).item() == 3.5
