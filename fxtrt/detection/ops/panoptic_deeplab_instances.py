"""Define `fxtrt::panoptic_deeplab_instances`, which turns labels of pixels into instances."""

from __future__ import annotations

import torch
from detectron2.structures import BitMasks
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from .panoptic_deeplab_labels import VOID

__all__ = ["instances"]


@custom_op("fxtrt::panoptic_deeplab_instances", mutates_args=())
def instances(
    panoptic: Tensor, probabilities: Tensor, centers: Tensor, things: list[int], divisor: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the instances of a picture, in the order of their labels.

    A score is the mean probability of the class in the mask, times that of the mask's centre.

    Args:
        panoptic: (H, W), int64, as `panoptic_deeplab_labels` returns it.
        probabilities: (classes, H, W).
        centers: (1, H, W).

    Returns:
        Classes (N,), int64; masks (N, H, W), bool; scores (N,), float32; boxes (N, 4), float32.
    """
    numbers = [int(label) for label in torch.unique(panoptic).tolist() if label != VOID]
    found = [label for label in numbers if label // divisor in things]
    classes = torch.tensor(
        [label // divisor for label in found], dtype=torch.int64, device=panoptic.device
    )
    masks = panoptic == torch.tensor(found, device=panoptic.device).reshape(-1, 1, 1)
    scores = [
        _score(mask, probabilities[label // divisor], centers[0])
        for label, mask in zip(found, masks, strict=True)
    ]
    boxes: Tensor = BitMasks(masks).get_bounding_boxes().tensor
    return (
        classes,
        masks,
        torch.tensor(scores, dtype=torch.float32, device=panoptic.device),
        boxes.to(panoptic.device),
    )


@instances.register_fake
def _(
    panoptic: Tensor, probabilities: Tensor, centers: Tensor, things: list[int], divisor: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size(min=0)
    return (
        panoptic.new_empty((count,)),
        panoptic.new_empty((count, *panoptic.shape), dtype=torch.bool),
        panoptic.new_empty((count,), dtype=torch.float32),
        panoptic.new_empty((count, 4), dtype=torch.float32),
    )


def _score(mask: Tensor, probability: Tensor, centers: Tensor) -> Tensor:
    rows, columns = mask.nonzero().float().unbind(1)
    row, column = (int(values.mean().item()) for values in (rows, columns))
    return probability[mask].mean() * centers[row, column]


explain("fxtrt::panoptic_deeplab_instances", "it looks at the pixels of one instance after another")
