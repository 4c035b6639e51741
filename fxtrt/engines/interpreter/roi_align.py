"""Execute the ROIAlign plugin as TensorRT documents it, like ONNX's RoiAlign."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["roi_align"]


def roi_align(x: Tensor, rois: Tensor, images: Tensor, attributes: Tensor) -> Tensor:
    """Return the pooled regions [regions, channels, rows, columns].

    A region without samples is NaN, because the plugin divides by their number.

    Args:
        attributes: the attributes `plugins.NUMBERS`, repeated for each bin.
    """
    shifted, average, ratio, scale = attributes[:, 0, 0].tolist()
    rows, columns = attributes.shape[1:]
    pooled = []
    for roi, image in zip(rois, images.long().tolist(), strict=True):
        left, top, right, bottom = roi * scale - (0.5 if shifted else 0.0)
        y = _positions(top, bottom, rows, int(ratio), bool(shifted))
        x_ = _positions(left, right, columns, int(ratio), bool(shifted))
        pooled.append(_pool(_weights(y, x.shape[2]), _weights(x_, x.shape[3]), x[image], average))
    return torch.stack(pooled) if pooled else x.new_zeros(0, x.shape[1], rows, columns)


def _positions(start: Tensor, end: Tensor, bins: int, ratio: int, shifted: bool) -> Tensor:
    """Return the positions of each bin's samples, [bins, samples], in pixels."""
    extent = end - start if shifted else (end - start).clamp(min=1)
    size = extent / bins
    count = ratio or max(0, int(size.ceil()))
    inner = torch.arange(count, dtype=size.dtype, device=size.device) + 0.5
    first = start + torch.arange(bins, dtype=size.dtype, device=size.device) * size
    return first[:, None] + inner * (size / max(count, 1))


def _weights(positions: Tensor, size: int) -> Tensor:
    """Return the weight of each pixel in each sample, [bins, samples, size]; outside it is 0."""
    inside = (positions >= -1) & (positions <= size)
    place = positions.clamp(0, size - 1)[..., None]
    pixels = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (place - pixels).abs()).clamp(min=0) * inside[..., None]


def _pool(rows: Tensor, columns: Tensor, image: Tensor, average: float) -> Tensor:
    if not average:
        raise NotImplementedError("mode 0 (maximum) of ROIAlign_TRT")
    total = torch.einsum("pih,qjw,chw->cpq", rows, columns, image)
    return total / (rows.shape[1] * columns.shape[1])
