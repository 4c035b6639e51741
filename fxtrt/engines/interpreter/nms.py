"""Execute the NMS layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .layers import (
    Compute,
    Layer,
    layer,
)


@layer("NMS", "INMSLayer")
def nms(layer: Layer) -> Compute:
    centred = layer.raw.bounding_box_format.name == "CENTER_SIZES"
    limit = layer.raw.topk_box_limit
    dtype = layer.output_dtype()

    def compute(
        boxes: Tensor,
        scores: Tensor,
        most: Tensor,
        iou: Tensor | None = None,
        least: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        corners = _corners(boxes.float(), centred)
        if corners.dim() == 3:
            corners = corners.unsqueeze(2).expand(-1, -1, scores.shape[2], -1)
        max_iou = 0.0 if iou is None else float(iou)
        min_score = 0.0 if least is None else float(least)
        rows: list[tuple[int, int, int]] = []
        for image in range(scores.shape[0]):
            order = _candidates(scores[image].float(), min_score, limit)
            kept = _select(corners[image], order, int(most), max_iou)
            rows += [(image, cls, box) for cls, box in kept]
        selected = torch.tensor(rows, dtype=dtype, device=boxes.device).reshape(-1, 3)
        return selected, torch.tensor(len(rows), dtype=torch.int32, device=boxes.device)

    return compute


def _corners(boxes: Tensor, centred: bool) -> Tensor:
    """Return `boxes` as (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred:
        return torch.cat([first - second / 2, first + second / 2], -1)
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _candidates(scores: Tensor, least: float, limit: int) -> list[tuple[int, int]]:
    """Return (box, class) of one image's scores above `least`, best first, at most `limit`."""
    order = torch.argsort(scores.flatten(), descending=True, stable=True)
    order = order[scores.flatten()[order] > least][:limit]
    return [divmod(index, scores.shape[1]) for index in order.tolist()]


def _select(
    corners: Tensor, order: list[tuple[int, int]], most: int, max_iou: float
) -> list[tuple[int, int]]:
    """Return (class, box) of the boxes to keep; only boxes of one class suppress each other."""
    kept: dict[int, list[int]] = {}
    result: list[tuple[int, int]] = []
    for box, cls in order:
        rivals = kept.setdefault(cls, [])
        if len(rivals) >= most:
            continue
        if rivals and bool((_iou(corners[box, cls], corners[rivals, cls]) > max_iou).any()):
            continue
        rivals.append(box)
        result.append((cls, box))
    return result


def _iou(box: Tensor, others: Tensor) -> Tensor:
    overlap = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
    shared = overlap.clamp(min=0).prod(-1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(-1) - shared
    # Two boxes without area do not overlap.
    return torch.where(union > 0, shared / union, 0.0)
