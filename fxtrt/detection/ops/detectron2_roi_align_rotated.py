"""Define `fxtrt::detectron2_roi_align_rotated`, Detectron2's RoIAlign of rotated boxes."""

from __future__ import annotations

from collections.abc import Sequence

import detectron2.layers
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["roi_align_rotated"]

_roi_align_rotated = detectron2.layers.roi_align_rotated
"""Detectron2's own function, read at import: during capture the function below replaces it."""


@custom_op("fxtrt::detectron2_roi_align_rotated", mutates_args=())
def _operator(
    input: Tensor, rois: Tensor, rows: int, columns: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    return _roi_align_rotated(input, rois, (rows, columns), spatial_scale, sampling_ratio)  # type: ignore[no-any-return]  # untyped


@_operator.register_fake
def _(
    input: Tensor, rois: Tensor, rows: int, columns: int, spatial_scale: float, sampling_ratio: int
) -> Tensor:
    return input.new_empty((rois.shape[0], input.shape[1], rows, columns))


def roi_align_rotated(
    input: Tensor,
    rois: Tensor,
    output_size: Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
) -> Tensor:
    """Call the operator with the arguments of `detectron2.layers.roi_align_rotated`.

    Args:
        input: (images, C, H, W).
        rois: (N, 6): the index of the image, then x and y of the centre, width and height in
            pixels, and the angle in degrees.
        output_size: rows and columns.

    Returns:
        (N, C, rows, columns).
    """
    return _operator(input, rois, *output_size, spatial_scale, sampling_ratio)  # type: ignore[no-any-return]  # untyped


explain(
    "fxtrt::detectron2_roi_align_rotated",
    "a kernel of Detectron2's _C without a TensorRT layer",
)
