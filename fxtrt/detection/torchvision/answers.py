"""Turn what a core returns into torchvision's answers, without torchvision's code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core_batch import counted
from ..ops.paste_masks_in_image import paste_masks_in_image
from .pictures import ImageBatch

__all__ = ["found_in", "place"]


def found_in(names: Sequence[str], outputs: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Return what was found in each image, by torchvision's names, cut to its number.

    Args:
        names: the names of the outputs after the first, in torchvision's order.
        outputs: the summary of `place_detections`; then one tensor (B, D, ...) for each name.

    Raises:
        TooManyCandidates: for an image whose result may differ.
    """
    summary, *padded = outputs
    named = dict(zip(names, padded, strict=True))
    found = [
        {name: output[image, : row[0]] for name, output in named.items()}
        for image, row in enumerate(counted(summary))
    ]
    for one in found:
        if "keypoints" in one:
            _split_keypoints(one)
    return found


def place(found: Sequence[dict[str, Tensor]], batch: ImageBatch) -> None:
    """Do the rest of `GeneralizedRCNNTransform.postprocess`, after the boxes, in place."""
    for one, picture, scales in zip(found, batch.pictures, batch.scales, strict=True):
        if "masks" in one:
            one["masks"] = paste_masks_in_image(one["masks"], one["boxes"], list(picture))
        if "keypoints" in one:
            one["keypoints"][..., 0] *= scales[0]
            one["keypoints"][..., 1] *= scales[1]


def _split_keypoints(one: dict[str, Tensor]) -> None:
    """Give keypoints a visibility of 1 and their scores a name, as torchvision does."""
    points = one["keypoints"]
    one["keypoints"] = torch.cat([points[..., :2], torch.ones_like(points[..., :1])], -1)
    one["keypoints_scores"] = points[..., 2]
