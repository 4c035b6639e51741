"""The plans of torchvision's detectors, and the equivalents that they share."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norms import NORMS
from ..ops.operators import (
    batched_nms,
    heatmaps_to_keypoints,
    paste_masks_in_image,
)
from ..recipes import (
    Equivalents,
    Recipe,
    register,
)
from ..symbolic_len import rows
from .dense import (
    detections_of_fcos,
    detections_of_retinanet,
    detections_of_ssd,
)

__all__ = ["FCOS", "GENERALIZED_RCNN", "RETINANET", "SSD", "decode"]


def decode(coder: Any, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """`BoxCoder.decode`, which asks whether there is any box before it reshapes.

    Args:
        coder: the `BoxCoder`.
        rel_codes: (N, 4 * classes).
        boxes: of each image, (n, 4); N in all.

    Returns:
        (N, classes, 4). The original gives (0, 4 * classes) where N is 0.
    """
    decoded: Tensor = coder.decode_single(rel_codes, torch.cat(list(boxes), dim=0))
    return decoded.reshape(decoded.shape[0], decoded.shape[1] // 4, 4)


def resize(
    image: Tensor,
    self_min_size: int,
    self_max_size: int,
    target: Any = None,
    fixed_size: tuple[int, int] | None = None,
) -> tuple[Tensor, Any]:
    """`_resize_image_and_masks`, which asks which side is longer; for inference.

    Args:
        image: (C, H, W).
    """
    if fixed_size is not None:
        size: list[Any] = [fixed_size[1], fixed_size[0]]
    else:
        sides = image.shape[-2:]
        shortest, longest = torch.sym_min(*sides), torch.sym_max(*sides)
        scale = torch.sym_min(self_min_size / shortest, self_max_size / longest)
        # As `interpolate` rounds. torch 2.15 takes bounds of `sym_int` for floats.
        size = [math.floor(torch.sym_float(side) * scale) for side in sides]
    resized = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
    return resized, target


def batch_images(transform: Any, images: Sequence[Tensor], size_divisible: int = 32) -> Tensor:
    """`GeneralizedRCNNTransform.batch_images`, which asks which image is largest.

    Args:
        images: each (C, h, w).

    Returns:
        (N, C, H, W): the images in the corners of zeros.
    """
    sides = zip(*(image.shape[1:] for image in images), strict=True)
    most = (functools.reduce(torch.sym_max, of_one_axis) for of_one_axis in sides)
    height, width = (
        (side + size_divisible - 1) // size_divisible * size_divisible for side in most
    )
    return torch.stack([F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in images])


def topk_min(values: Tensor, orig_kval: int, axis: int) -> int | torch.SymInt:
    """`_topk_min`, which asks which of the two is smaller."""
    return torch.sym_min(orig_kval, values.size(axis))


_DETECTION = "torchvision.models.detection"
_TRANSFORM: Equivalents = {
    f"{_DETECTION}.transform._resize_image_and_masks": resize,
    f"{_DETECTION}.transform.GeneralizedRCNNTransform.batch_images": batch_images,
}

GENERALIZED_RCNN = register(
    Recipe(
        f"{_DETECTION}.generalized_rcnn.GeneralizedRCNN",
        {
            **NORMS,
            **_TRANSFORM,
            "torchvision.ops.boxes.batched_nms": batched_nms,
            "torchvision.ops.poolers.len": rows,
            f"{_DETECTION}._utils._topk_min": topk_min,
            f"{_DETECTION}._utils.BoxCoder.decode": decode,
            f"{_DETECTION}.roi_heads.heatmaps_to_keypoints": heatmaps_to_keypoints,
            f"{_DETECTION}.transform.paste_masks_in_image": paste_masks_in_image,
        },
        glue=(
            f"{_DETECTION}.roi_heads.RoIHeads.postprocess_detections",
            f"{_DETECTION}.roi_heads.keypointrcnn_inference",
            f"{_DETECTION}.roi_heads.maskrcnn_inference",
            f"{_DETECTION}.rpn.RegionProposalNetwork.filter_proposals",
            f"{_DETECTION}.transform.GeneralizedRCNNTransform.forward",
            f"{_DETECTION}.transform.GeneralizedRCNNTransform.postprocess",
            "torchvision.ops.poolers.MultiScaleRoIAlign.forward",
        ),
    )
)
RETINANET = register(
    Recipe(
        f"{_DETECTION}.retinanet.RetinaNet",
        {
            **_TRANSFORM,
            f"{_DETECTION}.retinanet.RetinaNet.postprocess_detections": detections_of_retinanet,
        },
    )
)
FCOS = register(
    Recipe(
        f"{_DETECTION}.fcos.FCOS",
        {**_TRANSFORM, f"{_DETECTION}.fcos.FCOS.postprocess_detections": detections_of_fcos},
    )
)
SSD = register(
    Recipe(
        f"{_DETECTION}.ssd.SSD",
        {**_TRANSFORM, f"{_DETECTION}.ssd.SSD.postprocess_detections": detections_of_ssd},
    )
)
