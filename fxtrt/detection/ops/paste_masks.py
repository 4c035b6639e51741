"""Define `fxtrt::paste_masks`, which pastes masks into their boxes by Detectron2's rules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import grid_sample

from ...registry import explain
from ..kernels.available import kernels_read

__all__ = ["paste_masks"]


@custom_op("fxtrt::paste_masks", mutates_args=())
def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Compute what Detectron2's `paste_masks_in_image` computes, mask by mask.

    Coordinates stay float32 for float16 masks, where Detectron2 rounds them. Where a probability
    equals the threshold but for rounding, the GPU may decide otherwise.

    Args:
        masks: (N, M, M), probabilities.
        boxes: (N, 4), pixels.
        threshold: the least probability of a pixel that belongs to the mask; not negative.

    Returns:
        (N, height, width), bool; all False where the box is not finite.
    """
    _require_sound(masks, boxes, threshold)
    pasted = masks.new_zeros((len(masks), height, width), dtype=torch.bool)
    for mask, box, result in zip(masks, boxes.float(), pasted, strict=True):
        if box.isfinite().all():
            rows, columns = _region(box.tolist(), height, width)
            result[rows, columns] = _sample(mask, box, rows, columns) >= threshold
    return pasted


@paste_masks.register_kernel("cuda")
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    _require_sound(masks, boxes, threshold)
    if kernels_read(masks):
        from ..kernels.paste_masks import paste

        return paste(masks, boxes, height, width, threshold)
    return _paste_whole(masks, boxes, height, width, threshold)


def _paste_whole(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    """Sample each mask at every pixel: to know the rows of its box, the host would have to wait."""
    pasted = masks.new_empty((len(masks), height, width), dtype=torch.bool)
    for mask, box, result in zip(masks, boxes.float(), pasted, strict=True):
        probability = _sample(mask, box, slice(0, height), slice(0, width))
        touched = _touched(box[1], box[3], height)[:, None] & _touched(box[0], box[2], width)
        # A box without width or height has no coordinates: not even a threshold of 0 is reached.
        touched = touched & box.isfinite().all() & (box[:2] != box[2:]).all()
        torch.logical_and(probability >= threshold, touched, out=result)
    return pasted


def _touched(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Tell which rows or columns lie in `_region`."""
    pixels = torch.arange(size, device=low.device)
    return (pixels >= low.floor() - 1) & (pixels < high.ceil() + 1)


def _require_sound(masks: Tensor, boxes: Tensor, threshold: float) -> None:
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"masks of the shape {tuple(masks.shape)} and boxes of the shape {tuple(boxes.shape)}; "
            "expected square masks (N, M, M) and boxes (N, 4)"
        )
    if threshold < 0:
        raise ValueError(
            f"the threshold of masks is {threshold}, and a mask of booleans needs one of 0 or more"
        )


def _region(box: Sequence[float], height: int, width: int) -> tuple[slice, slice]:
    """Return the rows and columns that the box touches, as Detectron2 clips them."""
    x1, y1, x2, y2 = torch.tensor(box)
    left, top = (int(torch.clamp(corner.floor() - 1, min=0)) for corner in (x1, y1))
    right = int(torch.clamp(x2.ceil() + 1, max=width))
    bottom = int(torch.clamp(y2.ceil() + 1, max=height))
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def _sample(mask: Tensor, box: Tensor, rows: slice, columns: slice) -> Tensor:
    """Return the probabilities of the pixels in `rows` and `columns`."""
    x1, y1, x2, y2 = box
    x = torch.arange(columns.start, columns.stop, device=box.device, dtype=torch.float32) + 0.5
    y = torch.arange(rows.start, rows.stop, device=box.device, dtype=torch.float32) + 0.5
    x = (x - x1) / (x2 - x1) * 2 - 1
    y = (y - y1) / (y2 - y1) * 2 - 1
    grid = torch.stack([x.expand(len(y), len(x)), y[:, None].expand(len(y), len(x))], 2)
    mask = mask.to(torch.promote_types(mask.dtype, torch.float32))[None, None]
    return grid_sample(mask, grid[None].to(mask.dtype), align_corners=False)[0, 0]


@paste_masks.register_fake
def _(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float) -> Tensor:
    return masks.new_empty((masks.shape[0], height, width), dtype=torch.bool)


explain("fxtrt::paste_masks", "it pastes each mask into its own box")
