"""Stand-ins for kernels of Detectron2's compiled part, for tests where it is absent.

They take the same arguments and are good enough to compare fxtrt with eager, which both call them;
they do not give the kernels' numbers, but for deformable convolution.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["define"]

_SCHEMAS = (
    "nms_rotated(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align_rotated_forward(Tensor input, Tensor rois, float spatial_scale, int pooled_height, "
    "int pooled_width, int sampling_ratio) -> Tensor",
)


def define(compiled: ModuleType) -> None:
    """Make them operators, and functions of `compiled`: versions of Detectron2 differ in that."""
    for schema in _SCHEMAS:
        _library().define(schema)  # type: ignore[no-untyped-call]  # untyped torch API
    for kernel in (nms_rotated, roi_align_rotated_forward):
        for device in ("CPU", "CUDA"):
            _library().impl(kernel.__name__, kernel, device)  # type: ignore[no-untyped-call]  # also
        setattr(compiled, kernel.__name__, kernel)
    compiled.deform_conv_forward = deform_conv_forward  # type: ignore[attr-defined]  # a stand-in
    compiled.modulated_deform_conv_forward = modulated_deform_conv_forward  # type: ignore[attr-defined]


@functools.cache
def _library() -> torch.library.Library:
    """Kept for good: what it defines goes with it."""
    return torch.library.Library("detectron2", "FRAGMENT")  # type: ignore[no-untyped-call]  # also


def nms_rotated(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Boxes are (N, 5); overlaps are those of the upright boxes around them."""
    from torchvision.ops import nms

    centre, sides, angle = boxes[:, :2], boxes[:, 2:4], boxes[:, 4:].deg2rad()
    cos, sin = angle.cos().abs(), angle.sin().abs()
    half = (cos * sides + sin * sides.flip(1)) / 2
    return nms(torch.cat([centre - half, centre + half], 1), scores, iou_threshold)  # type: ignore[no-any-return]  # untyped


def roi_align_rotated_forward(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
) -> Tensor:
    """`rois` is (N, 6), the number of its image before each box; one sample for each bin."""
    centre, sides = rois[:, 1:3] * spatial_scale, rois[:, 3:5] * spatial_scale
    angle = rois[:, 5].deg2rad()
    rows, columns = ((torch.arange(n) + 0.5) / n - 0.5 for n in (pooled_height, pooled_width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    x, y = (part.to(input.device) * sides[:, i, None, None] for i, part in enumerate((x, y)))
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    turned = torch.stack([x * cos + y * sin, y * cos - x * sin], -1) + centre[:, None, None]
    height, width = input.shape[2:]
    grid = turned * 2 / torch.tensor([width, height], device=input.device) - 1
    result = input.new_zeros(len(rois), input.shape[1], pooled_height, pooled_width)
    for image, features in enumerate(input):
        chosen = (rois[:, 0] == image).nonzero()[:, 0]
        places = grid[chosen].reshape(1, -1, pooled_width, 2)
        sampled = F.grid_sample(features[None], places, align_corners=False)[0]
        sizes = (len(features), len(chosen), pooled_height, pooled_width)
        result[chosen] = sampled.reshape(sizes).transpose(0, 1)
    return result


def deform_conv_forward(
    input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, *others: Any
) -> None:
    """The kernel for GPUs; others: two buffers, sizes of the kernel, steps as columns and rows."""
    from torchvision.ops import deform_conv2d

    stride, padding, dilation = ((others[i + 1], others[i]) for i in (4, 6, 8))
    output.copy_(deform_conv2d(input, offset, weight, None, stride, padding, dilation))


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    *others: Any,
) -> None:
    """Also for GPUs; others: a buffer, sizes of the kernel, steps as rows and columns, groups, and
    whether `bias` counts."""
    from torchvision.ops import deform_conv2d

    stride, padding, dilation = (others[i : i + 2] for i in (3, 5, 7))
    shift = bias if others[-1] else None
    output.copy_(deform_conv2d(input, offset, weight, shift, stride, padding, dilation, mask))
