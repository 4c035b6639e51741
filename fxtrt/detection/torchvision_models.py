"""The plans of torchvision's detectors, and the equivalents that they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .lengths import rows
from .operators import batched_nms, heatmaps_to_keypoints, paste_masks_in_image
from .plans import ComponentPlan, register

__all__ = ["GENERALIZED_RCNN", "decode"]


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


GENERALIZED_RCNN = register(
    ComponentPlan(
        "torchvision.models.detection.generalized_rcnn.GeneralizedRCNN",
        {
            "torchvision.ops.boxes.batched_nms": batched_nms,
            "torchvision.ops.poolers.len": rows,
            "torchvision.models.detection._utils.BoxCoder.decode": decode,
            "torchvision.models.detection.roi_heads.heatmaps_to_keypoints": heatmaps_to_keypoints,
            "torchvision.models.detection.transform.paste_masks_in_image": paste_masks_in_image,
        },
    )
)
