"""Define `fxtrt::paste_masks_in_image`, by which torchvision's Mask R-CNN enlarges its masks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.library import custom_op
from torchvision.models.detection import roi_heads

from ...registry import explain
from ..kernels.available import kernels_read

__all__ = ["paste_masks_in_image"]

_paste_masks_in_image = roi_heads.paste_masks_in_image
"""torchvision's own function, read at import: during capture the operator below replaces it."""


@custom_op("fxtrt::paste_masks_in_image", mutates_args=())
def paste_masks_in_image(
    masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1
) -> Tensor:
    """Call torchvision's `paste_masks_in_image`, which loops over the detections.

    On the GPU one kernel pastes all masks; a box that is not finite leaves its mask empty.

    Args:
        masks: (N, 1, M, M), probabilities.
        boxes: (N, 4), pixels.
        img_shape: height and width.

    Returns:
        (N, 1, height, width), of the dtype of `masks`.
    """
    return _paste_masks_in_image(masks, boxes, tuple(img_shape), padding)  # type: ignore[no-any-return]  # untyped


@paste_masks_in_image.register_kernel("cuda")
def _(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    square = masks.shape[1:] == (1, masks.shape[-1], masks.shape[-1])
    if kernels_read(masks) and square and len(masks) == len(boxes):
        from ..kernels.paste_resized_masks import paste_resized

        return paste_resized(masks, boxes, img_shape, padding)
    return _paste_masks_in_image(masks, boxes, tuple(img_shape), padding)  # type: ignore[no-any-return]  # untyped


@paste_masks_in_image.register_fake
def _(masks: Tensor, boxes: Tensor, img_shape: Sequence[int], padding: int = 1) -> Tensor:
    return masks.new_empty((masks.shape[0], 1, *img_shape))


explain("fxtrt::paste_masks_in_image", "it pastes mask after mask, each into its own box")
