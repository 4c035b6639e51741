"""The ROIAlign plugin on the reference engine; numbers by hand from TensorRT's documentation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networkrun import floats, load

from fxtrt.engines.base import EngineBackend
from fxtrt.engines.network import Network
from fxtrt.engines.plugins import add_roi_align

# Each pixel is the square of its column, each image ten times the one before.
SQUARES = torch.arange(8.0).square().expand(1, 1, 8, 8)
X = torch.cat([SQUARES, SQUARES * 10])


def pooled(
    backend: EngineBackend, *roi: float, image: int = 0, columns: int = 1, **attributes: Any
) -> torch.Tensor:
    """One region's columns; rows are alike."""
    defaults = {
        "coordinate_transformation_mode": 1,
        "mode": 1,
        "output_height": 1,
        "output_width": columns,
        "sampling_ratio": 0,
        "spatial_scale": 1.0,
    }

    def build(net: Any, *tensors: Any) -> Any:
        network = Network(backend.features, None, net)
        return add_roi_align(network, tensors, defaults | attributes)

    inputs = (X, floats([roi]), torch.tensor([image], dtype=torch.int32))
    (result,) = load(backend, build, *inputs).run(inputs)
    return result[0, 0, 0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        # Samples at 2, 3, 4, 5: one for each pixel of the region.
        ({}, [13.5]),
        # At 2.5, 3.5, 4.5, 5.5: no shift by half a pixel.
        ({"coordinate_transformation_mode": 0}, [17.5]),
        # At 3.5, between 9 and 16.
        ({"sampling_ratio": 1}, [12.5]),
        # At 2.5 and 4.5.
        ({"sampling_ratio": 2}, [13.5]),
        # At 1 and 2 of the half-size region from 0.5 to 2.5.
        ({"spatial_scale": 0.5}, [2.5]),
        # At 2, 3 and 4, 5.
        ({"columns": 2}, [6.5, 20.5]),
        ({"image": 1}, [135.0]),
    ],
    ids=str,
)
def test_each_attribute_changes_where_samples_are_taken(
    reference: EngineBackend, attributes: dict[str, Any], expected: list[float]
) -> None:
    assert_equal = torch.testing.assert_close
    assert_equal(pooled(reference, 2.0, 2.0, 6.0, 6.0, **attributes), torch.tensor(expected))


def test_samples_outside_are_zero_and_those_near_an_edge_on_it(reference: EngineBackend) -> None:
    # At 6, 7, 8 (on the last pixel) and 9 (outside).
    result = pooled(reference, 6.0, 2.0, 10.0, 6.0)
    torch.testing.assert_close(result, torch.tensor([(36 + 49 + 49 + 0) / 4]))


def test_a_region_without_extent(reference: EngineBackend) -> None:
    assert pooled(reference, 2.0, 2.0, 2.0, 2.0).isnan().all()
    # Without the shift it is one pixel wide: one sample at 2.5.
    result = pooled(reference, 2.0, 2.0, 2.0, 2.0, coordinate_transformation_mode=0)
    torch.testing.assert_close(result, torch.tensor([6.5]))
