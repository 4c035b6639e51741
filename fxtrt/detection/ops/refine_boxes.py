"""Define `fxtrt::refine_boxes`, by which a stage of a Cascade R-CNN makes the next one's boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..box_coding import apply_deltas, clip
from ..kernels.available import TRITON

__all__ = ["refine_boxes"]


@custom_op("fxtrt::refine_boxes", mutates_args=())
def refine_boxes(
    deltas: Tensor, boxes: Tensor, image_sizes: Tensor, weights: Sequence[float]
) -> Tensor:
    """Apply a stage's deltas to its boxes and clip them to their images.

    Rows of padding are boxes too: the caller knows by its counts which rows to ignore. A box
    whose deltas are not finite is not finite either, where Detectron2 raises an AssertionError;
    `box_detections` drops such a row.

    Args:
        deltas: (B * R, 4), of any floating dtype.
        boxes: (B, R, 4).
        image_sizes: (B, 2), height and width without padding.
        weights: what dx, dy, dw and dh are divided by.

    Returns:
        (B, R, 4), float32.
    """
    return _composed(deltas, boxes, image_sizes, weights)


def _composed(
    deltas: Tensor, boxes: Tensor, image_sizes: Tensor, weights: Sequence[float]
) -> Tensor:
    decoded = apply_deltas(deltas, boxes.reshape(-1, 4), weights)
    return clip(decoded.reshape(boxes.shape), image_sizes[:, None])


@refine_boxes.register_kernel("cuda")
def _(deltas: Tensor, boxes: Tensor, image_sizes: Tensor, weights: Sequence[float]) -> Tensor:
    """Run the Triton kernel; without Triton about twenty of PyTorch's, which wait for nothing."""
    if TRITON:
        from ..kernels import box_head

        return box_head.refine_boxes(deltas, boxes, image_sizes, weights)
    return _composed(deltas, boxes, image_sizes, weights)


@refine_boxes.register_fake
def _(deltas: Tensor, boxes: Tensor, image_sizes: Tensor, weights: Sequence[float]) -> Tensor:
    return boxes.new_empty(boxes.shape, dtype=torch.float32)


explain("fxtrt::refine_boxes", "it decodes a few thousand numbers, in exact float32")
