"""Define `fxtrt::place_detections`, which scales padded detections to the pictures' own pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op

from ...registry import explain
from ..kernels.available import TRITON

__all__ = ["place_detections"]


@custom_op("fxtrt::place_detections", mutates_args=())
def place_detections(
    boxes: Tensor, counts: Tensor, overflow: Tensor, scales: Tensor, limits: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and clip boxes as Detectron2's `detector_postprocess`; sum up what the host must know.

    Args:
        boxes: (B, D, 4).
        counts: (B,), int32: the rows that are no padding.
        overflow: (B,), bool.
        scales, limits: (B, 4), what boxes are multiplied with and then clipped at.

    Returns:
        (B, D, 4) boxes; and (B, 2 + D), int32: for each image its count, its overflow, and for
        each row whether the box still has an area.
    """
    return _composed(boxes, counts, overflow, scales, limits)


@place_detections.register_kernel("cuda")
def _(
    boxes: Tensor, counts: Tensor, overflow: Tensor, scales: Tensor, limits: Tensor
) -> tuple[Tensor, Tensor]:
    if not TRITON:
        return _composed(boxes, counts, overflow, scales, limits)
    from ..kernels.placing import place

    return place(boxes, counts, overflow, scales, limits)


def _composed(
    boxes: Tensor, counts: Tensor, overflow: Tensor, scales: Tensor, limits: Tensor
) -> tuple[Tensor, Tensor]:
    scaled = boxes * scales[:, None]
    placed = torch.minimum(scaled.clamp(min=0), limits[:, None])
    is_large = (placed[..., 2:] > placed[..., :2]).all(dim=-1)
    summary = torch.cat([counts[:, None], overflow[:, None].int(), is_large.int()], dim=1)
    return placed, summary


@place_detections.register_fake
def _(
    boxes: Tensor, counts: Tensor, overflow: Tensor, scales: Tensor, limits: Tensor
) -> tuple[Tensor, Tensor]:
    images, most = boxes.shape[:2]
    return torch.empty_like(boxes), boxes.new_empty((images, most + 2), dtype=torch.int32)


explain("fxtrt::place_detections", "it is one small step, which costs less than an engine's start")
