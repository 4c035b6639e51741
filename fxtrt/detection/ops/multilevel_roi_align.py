"""Define `fxtrt::multilevel_roi_align`, which pools each region from the level of its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..kernels.available import kernels_read
from ..region_levels import levels_of
from ..torchvision_library import roi_align

__all__ = ["multilevel_roi_align"]


def _composed(
    features: Sequence[Tensor],
    boxes: Tensor,
    counts: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
    canonical_size: int,
    canonical_level: int,
    library: str,
) -> Tensor:
    """Compute what Detectron2's `ROIPooler` and torchvision's `MultiScaleRoIAlign` compute.

    Coordinates stay float32 for float16 features, where Detectron2 rounds them. On the GPU the
    kernel gives the same values but for rounding, and the same levels.

    Args:
        features: (B, C, h, w) of each level.
        boxes: (B, R, 4), pixels of the image.
        counts: (B,), how many of each image's boxes are real; the others are padding.
        scales: the size of each level divided by that of the image, a power of two.
        output_size: height and width.
        sampling_ratio: samples along each side of a bin; 0 or less: as many as the bin has pixels.
        aligned: whether the centres of pixels lie at half coordinates.
        canonical_size: the side of a square box that belongs to `canonical_level`.
        library: "detectron2" or "torchvision", whose rule assigns boxes to levels.

    Returns:
        (B * R, C, *output_size), of the features' dtype; zero for padding, for boxes that are
        not finite, and for boxes without a level.
    """
    _require_one_batch(features, boxes, counts, scales)
    # All boxes are pooled on every level, those of other levels as an empty box at the origin. So
    # no size depends on data, and the GPU need not be waited for.
    count = boxes.shape[1]
    rois, real = _rois(boxes, counts)
    if aligned and sampling_ratio <= 0:
        # Such a box has no samples, and torchvision's kernel for the CPU fails to allocate them.
        real = real & (rois[:, 3:] >= rois[:, 1:3]).all(1)
    areas = (rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])
    levels = levels_of(areas, scales, canonical_size, canonical_level, library)
    pooled = features[0].new_zeros(
        (len(boxes) * count, features[0].shape[1], *output_size), dtype=_precision(features[0])
    )
    height, width = output_size
    for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        here = real & (levels == level)
        feature = feature.to(pooled.dtype)
        some = torch.where(here[:, None], rois, 0.0).to(pooled.dtype)
        some = roi_align(feature, some, (height, width), scale, sampling_ratio, aligned)
        pooled = torch.where(here[:, None, None, None], some, pooled)
    return pooled.to(features[0].dtype)


multilevel_roi_align = custom_op("fxtrt::multilevel_roi_align", mutates_args=())(_composed)


@multilevel_roi_align.register_kernel("cuda")
def _(features: Sequence[Tensor], *arguments: Any) -> Tensor:
    _require_one_batch(features, *arguments[:3])
    if kernels_read(features[0]):
        from ..kernels.roi_align import pool

        return pool(features, *arguments)
    return _composed(features, *arguments)


def _require_one_batch(
    features: Sequence[Tensor], boxes: Tensor, counts: Tensor, scales: Sequence[float]
) -> None:
    """Raise a ValueError if a kernel would read beyond a tensor."""
    images = [len(feature) for feature in features]
    if {*images, len(boxes), len(counts)} != {len(boxes)} or len(scales) != len(features):
        raise ValueError(
            f"features of {images} images with {len(scales)} scales do not go with boxes of "
            f"{len(boxes)} images and {len(counts)} counts"
        )


def _precision(feature: Tensor) -> torch.dtype:
    """Pool in float32 at least: the kernels of the CPU for float16 round each sum."""
    return torch.promote_types(feature.dtype, torch.float32)


def _rois(boxes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Put the image's index before each box, and tell which boxes are to be pooled."""
    images, count, _ = boxes.shape
    index = torch.arange(images, device=boxes.device)[:, None].expand(images, count)
    rows = torch.arange(count, device=boxes.device)
    real = (rows < counts[:, None]) & boxes.isfinite().all(2)
    return torch.cat([index[..., None].to(boxes.dtype), boxes], 2).flatten(0, 1), real.flatten()


@multilevel_roi_align.register_fake
def _(
    features: Sequence[Tensor],
    boxes: Tensor,
    counts: Tensor,
    scales: Sequence[float],
    output_size: Sequence[int],
    sampling_ratio: int,
    aligned: bool,
    canonical_size: int,
    canonical_level: int,
    library: str,
) -> Tensor:
    rows = boxes.shape[0] * boxes.shape[1]
    return features[0].new_empty((rows, features[0].shape[1], *output_size))


explain("fxtrt::multilevel_roi_align", "it reads each region from the level that its size names")
