"""Register the recipes of torchvision's detectors, and define the equivalents that they share."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norms import NORMS
from ..ops.batched_nms import batched_nms
from ..ops.heatmaps_to_keypoints import heatmaps_to_keypoints
from ..ops.paste_masks_in_image import paste_masks_in_image
from ..recipes import Equivalents, Recipe, register
from ..symbolic_len import symbolic_len
from .dense import detections_of_fcos, detections_of_retinanet, detections_of_ssd
from .one_stage import fcos_steps, retinanet_steps, ssd_steps
from .rcnn import rcnn_steps

__all__ = ["FCOS", "GENERALIZED_RCNN", "RETINANET", "SSD", "decode"]


def decode(coder: Any, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Replace `BoxCoder.decode`, which branches on whether there is any box before it reshapes.

    Args:
        coder: the `BoxCoder`.
        rel_codes: (N, 4 * classes).
        boxes: (n, 4) for each image; N in all.

    Returns:
        (N, classes, 4). The original returns (0, 4 * classes) if N is 0.
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
    """Replace `_resize_image_and_masks` for inference, which branches on which side is longer.

    Args:
        image: (C, H, W).
    """
    if fixed_size is not None:
        size: list[Any] = [fixed_size[1], fixed_size[0]]
    else:
        sides = image.shape[-2:]
        shortest, longest = torch.sym_min(*sides), torch.sym_max(*sides)
        scale = torch.sym_min(self_min_size / shortest, self_max_size / longest)
        # `interpolate` rounds down too. `sym_int` would do, but torch 2.15 gives it float bounds.
        size = [math.floor(torch.sym_float(side) * scale) for side in sides]
    resized = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
    return resized, target


def batch_images(transform: Any, images: Sequence[Tensor], size_divisible: int = 32) -> Tensor:
    """Replace `GeneralizedRCNNTransform.batch_images`, which branches on which image is largest.

    Args:
        images: (C, h, w) each.

    Returns:
        (N, C, H, W): each image in the upper left corner, and zeros around it.
    """
    sides = zip(*(image.shape[1:] for image in images), strict=True)
    most = (functools.reduce(torch.sym_max, of_one_axis) for of_one_axis in sides)
    height, width = (
        (side + size_divisible - 1) // size_divisible * size_divisible for side in most
    )
    return torch.stack([F.pad(i, (0, width - i.shape[2], 0, height - i.shape[1])) for i in images])


def topk_min(values: Tensor, orig_kval: int, axis: int) -> int | torch.SymInt:
    """Replace `_topk_min`, which branches on which of the two is smaller."""
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
            "torchvision.ops.poolers.len": symbolic_len,
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
        host_steps=rcnn_steps,
    )
)
RETINANET = register(
    Recipe(
        f"{_DETECTION}.retinanet.RetinaNet",
        {
            **_TRANSFORM,
            f"{_DETECTION}.retinanet.RetinaNet.postprocess_detections": detections_of_retinanet,
        },
        host_steps=retinanet_steps,
    )
)
FCOS = register(
    Recipe(
        f"{_DETECTION}.fcos.FCOS",
        {**_TRANSFORM, f"{_DETECTION}.fcos.FCOS.postprocess_detections": detections_of_fcos},
        host_steps=fcos_steps,
    )
)
SSD = register(
    Recipe(
        f"{_DETECTION}.ssd.SSD",
        {**_TRANSFORM, f"{_DETECTION}.ssd.SSD.postprocess_detections": detections_of_ssd},
        host_steps=ssd_steps,
    )
)
