"""Convert non-maximum suppression, for one image and one class, to TensorRT's own layer."""

from __future__ import annotations

from typing import Any

import torch

from ..conversion.context import Context
from ..graph.sizes import size_range
from ..registry import converts

_MOST = 5000
"""The layer considers this many boxes and drops those with the lowest scores beyond them."""
_LEAST = -3.0e38
"""This score replaces minus infinity, because the layer takes only scores above a threshold."""
_BELOW = -3.3e38


def _fits(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> str | None:
    if dets.dtype != torch.float32 or scores.dtype != torch.float32:
        return f"dets is {dets.dtype}, scores {scores.dtype}: half types round the overlap"
    if not 0 <= iou_threshold <= 1:
        return f"iou_threshold={iou_threshold}, the layer takes 0 to 1"
    most = size_range(dets.shape[0])[1]
    if most is None or most > _MOST:
        return f"there may be {most or 'any number of'} boxes, the layer takes {_MOST}"
    return None


@converts(
    "torchvision::nms",
    check=_fits,
    selects=True,
    opt_in="boxes of equal scores have no order, and the engine waits to know how many it keeps",
)
def nms(ctx: Context, dets: Any, scores: Any, iou_threshold: float) -> Any:
    """torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"""
    fake = ctx.fake("dets")
    count, most = fake.shape[0], size_range(fake.shape[0])[1]
    least = ctx.scalar(_LEAST, torch.float32, 1)
    scores = ctx.elementwise("MAX", scores, least)
    layer = ctx.net.add_nms(
        ctx.reshape(dets, [1, count, 4]),
        ctx.reshape(scores, [1, count, 1]),
        ctx.scalar(int(most or _MOST), torch.int32),
    )
    layer.bounding_box_format = ctx.trt.BoundingBoxFormat.CORNER_PAIRS
    layer.topk_box_limit = _MOST
    layer.set_input(3, ctx.scalar(_threshold(iou_threshold, fake.device), torch.float32))
    layer.set_input(4, ctx.scalar(_BELOW, torch.float32))
    # A row for each kept box: image, class, box.
    boxes = ctx.net.add_gather(layer.get_output(0), ctx.scalar(2, torch.int32), 1).get_output(0)
    kept = ctx.cast(boxes, torch.int64)
    ctx.shapes.add_source(kept, ctx.output.shape)
    return kept


def _threshold(iou: float, device: torch.device) -> float:
    """Round `iou` to float32 so that each overlap stays on the same side of it.

    torchvision's CPU kernel compares in float64, the others in float32.
    """
    near = torch.tensor(iou, dtype=torch.float32)
    if device.type == "cpu" and float(near) > iou:
        near = torch.nextafter(near, torch.tensor(0.0))
    return float(near)
