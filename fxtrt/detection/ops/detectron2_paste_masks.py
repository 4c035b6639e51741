"""Define `fxtrt::detectron2_paste_masks`, by which Detectron2 pastes masks into the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.layers import mask_ops
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor
from torch.library import custom_op

from ...registry import explain

__all__ = ["paste_masks"]

_paste_masks = retry_if_cuda_oom(mask_ops.paste_masks_in_image)
"""Detectron2's own function, read at import: during capture an equivalent replaces it."""


@custom_op("fxtrt::detectron2_paste_masks", mutates_args=())
def paste_masks(
    masks: Tensor, boxes: Tensor, image_shape: Sequence[int], threshold: float
) -> Tensor:
    """Call Detectron2's `paste_masks_in_image`, which loops over the detections.

    Args:
        masks: (N, M, M), probabilities.
        boxes: (N, 4), pixels.
        image_shape: height and width.

    Returns:
        (N, height, width), bool. The original returns uint8 for an N of 0 and for a
        threshold below 0.
    """
    pasted = _paste_masks(masks, boxes, tuple(image_shape), threshold)
    # When the GPU is out of memory, Detectron2 computes on the CPU and leaves the result there.
    return pasted.to(masks.device, torch.bool)  # type: ignore[no-any-return]  # untyped


@paste_masks.register_fake
def _(masks: Tensor, boxes: Tensor, image_shape: Sequence[int], threshold: float) -> Tensor:
    return masks.new_empty((masks.shape[0], *image_shape), dtype=torch.bool)


explain("fxtrt::detectron2_paste_masks", "it pastes mask after mask, each into its own box")
