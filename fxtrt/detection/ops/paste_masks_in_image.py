"""Define `fxtrt::paste_masks_in_image`, by which torchvision's Mask R-CNN enlarges its masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import interpolate, pad

from ...registry import explain
from ..kernels.available import kernels_read

__all__ = ["paste_masks_in_image"]


@custom_op("fxtrt::paste_masks_in_image", mutates_args=())
def paste_masks_in_image(
    masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1
) -> Tensor:
    """Compute what torchvision's `paste_masks_in_image` computes, mask by mask.

    A box that is not finite, or outside of the image, leaves its mask empty; torchvision fails
    then. On the GPU one kernel pastes all masks.

    Args:
        masks: (N, 1, M, M), probabilities.
        boxes: (N, 4), pixels.
        img_shape: height and width.

    Returns:
        (N, 1, height, width), of the dtype of `masks`.
    """
    return _composed(masks, boxes, img_shape, padding)


@paste_masks_in_image.register_kernel("cuda")
def _(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    square = masks.shape[1:] == (1, masks.shape[-1], masks.shape[-1])
    if kernels_read(masks) and square and len(masks) == len(boxes):
        from ..kernels.paste_resized_masks import paste_resized

        return paste_resized(masks, boxes, img_shape, padding)
    return _composed(masks, boxes, img_shape, padding)


def _composed(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int) -> Tensor:
    pasted = masks.new_zeros((len(masks), 1, *img_shape))
    sides = _expanded(boxes, (masks.shape[-1] + 2 * padding) / masks.shape[-1])
    finite = sides.isfinite().all(1, keepdim=True)
    # A box at the end of nowhere covers no pixel.
    whole = torch.where(finite, sides, -2.0).to(torch.int64).tolist()
    for mask, box, result in zip(pad(masks, (padding,) * 4), whole, pasted, strict=True):
        _paste(mask[0], box, result[0])
    return pasted


def _expanded(boxes: Tensor, scale: float) -> Tensor:
    """Scale boxes around their centres, in torchvision's order of operations."""
    halves = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * scale
    centres = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    return torch.cat([centres - halves, centres + halves], 1)


def _paste(mask: Tensor, box: Sequence[int], result: Tensor) -> None:
    """Resize a mask to its box, of whole pixels, and copy what is inside of the image."""
    left, top, right, bottom = box
    height, width = result.shape
    rows = slice(max(top, 0), min(bottom + 1, height))
    columns = slice(max(left, 0), min(right + 1, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    size = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    resized = interpolate(mask[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    result[rows, columns] = resized[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]


@paste_masks_in_image.register_fake
def _(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    return masks.new_empty((masks.shape[0], 1, *img_shape))


explain("fxtrt::paste_masks_in_image", "it pastes mask after mask, each into its own box")
