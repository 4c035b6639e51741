"""RESIZE and GRID_SAMPLE on the reference engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networkrun import floats, run

from fxtrt.engines.base import EngineBackend

RAMP = [0.0, 10.0, 20.0, 30.0]


@pytest.fixture
def trt(reference: EngineBackend) -> Any:
    return reference.features.trt


def resize(trt: Any, mode: str, transformation: str = "ASYMMETRIC", **attributes: Any) -> Any:
    def build(net: Any, x: Any) -> Any:
        layer = net.add_resize(x)
        layer.resize_mode = getattr(trt.InterpolationMode, mode)
        layer.coordinate_transformation = getattr(
            trt.ResizeCoordinateTransformation, transformation
        )
        for name, value in attributes.items():
            setattr(layer, name, value)
        return layer.get_output(0)

    return build


@pytest.mark.parametrize(
    ("transformation", "rounding", "size", "expected"),
    [
        # Coordinates 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5.
        ("ASYMMETRIC", "FLOOR", 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("ASYMMETRIC", "CEIL", 8, [0, 1, 1, 2, 2, 3, 3, 3]),
        ("ASYMMETRIC", "HALF_UP", 8, [0, 1, 1, 2, 2, 3, 3, 3]),
        ("ASYMMETRIC", "HALF_DOWN", 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        # Coordinates -0.25, 0.25, 0.75, ...
        ("HALF_PIXEL", "HALF_DOWN", 8, [0, 0, 1, 1, 2, 2, 3, 3]),
        ("HALF_PIXEL", "FLOOR", 8, [0, 0, 0, 1, 1, 2, 2, 3]),
        # Coordinates 0.5, 2.5.
        ("HALF_PIXEL", "HALF_UP", 2, [1, 3]),
        ("HALF_PIXEL", "HALF_DOWN", 2, [0, 2]),
        # Coordinates 0, 0.5, 1, ..., 3.
        ("ALIGN_CORNERS", "HALF_UP", 7, [0, 1, 1, 2, 2, 3, 3]),
        ("ALIGN_CORNERS", "FLOOR", 1, [0]),
    ],
)
def test_nearest_does_as_tensorrt_documents(
    reference: EngineBackend,
    trt: Any,
    transformation: str,
    rounding: str,
    size: int,
    expected: list[int],
) -> None:
    build = resize(
        trt,
        "NEAREST",
        transformation,
        nearest_rounding=getattr(trt.ResizeRoundMode, rounding),
        shape=(size,),
    )
    assert run(reference, build, floats(RAMP)).tolist() == [10 * i for i in expected]


@pytest.mark.parametrize(
    ("transformation", "size", "expected"),
    [
        ("ASYMMETRIC", 8, [0, 5, 10, 15, 20, 25, 30, 30]),
        ("HALF_PIXEL", 8, [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30]),
        ("ALIGN_CORNERS", 7, [0, 5, 10, 15, 20, 25, 30]),
        ("HALF_PIXEL", 2, [5, 25]),
        ("HALF_PIXEL", 1, [15]),
        ("ALIGN_CORNERS", 1, [0]),
    ],
)
def test_linear_does_as_tensorrt_documents(
    reference: EngineBackend, trt: Any, transformation: str, size: int, expected: list[float]
) -> None:
    build = resize(trt, "LINEAR", transformation, shape=(size,))
    assert run(reference, build, floats(RAMP)).tolist() == expected


def test_upper_selector_takes_the_first_element(reference: EngineBackend, trt: Any) -> None:
    build = resize(
        trt,
        "LINEAR",
        "HALF_PIXEL",
        selector_for_single_pixel=trt.ResizeSelector.UPPER,
        shape=(1,),
    )
    assert run(reference, build, floats(RAMP)).tolist() == [0]


def test_scales_determine_size_and_coordinates(reference: EngineBackend, trt: Any) -> None:
    # floor(4 * 0.6) = 2 elements at (i + 0.5) / 0.6 - 0.5 = 1/3 and 2.
    build = resize(trt, "LINEAR", "HALF_PIXEL", scales=[0.6])
    result = run(reference, build, floats(RAMP), dynamic=True)
    torch.testing.assert_close(result, floats(10 / 3, 20))


def test_scaled_sizes_are_multiplied_in_float32(reference: EngineBackend, trt: Any) -> None:
    # The float32 next to 0.7 is less than 0.7, and still gives 7.
    assert run(reference, resize(trt, "NEAREST", scales=[0.7]), torch.zeros(10)).shape == (7,)


def test_size_from_a_tensor(reference: EngineBackend, trt: Any) -> None:
    def build(net: Any, x: Any, like: Any) -> Any:
        layer = net.add_resize(x)
        layer.set_input(1, net.add_shape(like).get_output(0))
        return layer.get_output(0)

    result = run(reference, build, floats(RAMP), torch.zeros(2), dynamic=True)
    assert result.tolist() == [0, 20]


def test_linear_in_two_dimensions_is_the_product(reference: EngineBackend, trt: Any) -> None:
    x = floats([[0, 4], [8, 16]]).reshape(1, 1, 2, 2)
    build = resize(trt, "LINEAR", "ALIGN_CORNERS", shape=(1, 1, 3, 3))
    assert run(reference, build, x)[0, 0].tolist() == [[0, 2, 4], [4, 7, 10], [8, 12, 16]]


def test_linear_rounds_half_precision_once(reference: EngineBackend, trt: Any) -> None:
    x = torch.rand(1, 2, 5, 7, generator=torch.Generator().manual_seed(0)).half()
    build = resize(trt, "LINEAR", "HALF_PIXEL", shape=(1, 2, 9, 11))
    result = run(reference, build, x)
    expected = F.interpolate(x.float(), (9, 11), mode="bilinear").half()
    assert result.dtype == torch.float16
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("size", [(7, 9), (3, 4)])
@pytest.mark.parametrize("align", [True, False])
def test_cubic_agrees_with_torch(
    reference: EngineBackend, trt: Any, size: tuple[int, int], align: bool
) -> None:
    x = torch.rand(1, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    transformation = "ALIGN_CORNERS" if align else "HALF_PIXEL"
    build = resize(trt, "CUBIC", transformation, cubic_coeff=-0.75, shape=(1, 2, *size))
    expected = F.interpolate(x, size, mode="bicubic", align_corners=align)
    torch.testing.assert_close(run(reference, build, x), expected)


def test_cubic_weights_sum_to_one_without_the_outside(reference: EngineBackend, trt: Any) -> None:
    x = torch.ones(1, 1, 4, 4)
    kept = resize(trt, "CUBIC", "HALF_PIXEL", exclude_outside=1, shape=(1, 1, 9, 9))
    torch.testing.assert_close(run(reference, kept, x), torch.ones(1, 1, 9, 9))
    ramp = floats(RAMP).expand(1, 1, 4, 4).contiguous()
    clamped = resize(trt, "CUBIC", "HALF_PIXEL", exclude_outside=0, shape=(1, 1, 9, 9))
    assert not torch.allclose(run(reference, kept, ramp), run(reference, clamped, ramp))


def grid_sample(trt: Any, interpolation: str, mode: str, align: bool) -> Any:
    def build(net: Any, x: Any, grid: Any) -> Any:
        layer = net.add_grid_sample(x, grid)
        layer.interpolation_mode = getattr(trt.InterpolationMode, interpolation)
        layer.sample_mode = getattr(trt.SampleMode, mode)
        layer.align_corners = align
        return layer.get_output(0)

    return build


@pytest.mark.parametrize(
    ("interpolation", "mode", "align", "expected"),
    [
        # x = -1, 0, 1 and 2 in units of half the image.
        ("LINEAR", "CLAMP", True, [0, 15, 30, 30]),
        ("LINEAR", "FILL", True, [0, 15, 30, 0]),
        ("LINEAR", "REFLECT", True, [0, 15, 30, 15]),
        ("LINEAR", "FILL", False, [0, 15, 15, 0]),
        ("NEAREST", "CLAMP", True, [0, 20, 30, 30]),
    ],
)
def test_grid_sample_does_as_tensorrt_documents(
    reference: EngineBackend,
    trt: Any,
    interpolation: str,
    mode: str,
    align: bool,
    expected: list[float],
) -> None:
    x = floats(RAMP).reshape(1, 1, 1, 4)
    grid = floats([[-1, 0], [0, 0], [1, 0], [2, 0]]).reshape(1, 1, 4, 2)
    result = run(reference, grid_sample(trt, interpolation, mode, align), x, grid)
    assert result.flatten().tolist() == expected
