"""Define `fxtrt::keypoints_of_heatmaps`, which finds the peak of each enlarged heat map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import custom_op
from torch.nn.functional import interpolate

from ...registry import explain
from ..kernels.available import kernels_read

__all__ = ["keypoints_of_heatmaps"]


@custom_op("fxtrt::keypoints_of_heatmaps", mutates_args=())
def keypoints_of_heatmaps(maps: Tensor, boxes: Tensor) -> Tensor:
    """Compute what both libraries' `heatmaps_to_keypoints` compute.

    Each map is enlarged to its box, rounded up to whole pixels, by bicubic interpolation; the
    keypoint is where it is largest. Computed in float32 at least, also for float16 maps. On the
    GPU another pixel may win if its value is the same but for rounding.

    Args:
        maps: (N, K, H, W), logits.
        boxes: (N, 4), pixels.

    Returns:
        (N, K, 4), float32: x, y, logit and score, as Detectron2 has them. torchvision returns
        x, y and 1, and the logit. A box that is not finite counts as one of a single pixel.
    """
    _require_sound(maps, boxes)
    return _composed(maps, boxes)


@keypoints_of_heatmaps.register_kernel("cuda")
def _(maps: Tensor, boxes: Tensor) -> Tensor:
    _require_sound(maps, boxes)
    if kernels_read(maps):
        from ..kernels.keypoints import peaks

        return peaks(maps, boxes)
    return _composed(maps, boxes)


def _require_sound(maps: Tensor, boxes: Tensor) -> None:
    if maps.ndim != 4 or boxes.shape != (len(maps), 4):
        raise ValueError(
            f"maps of the shape {tuple(maps.shape)} and boxes of the shape {tuple(boxes.shape)}; "
            "expected (N, K, H, W) and (N, 4)"
        )


def _composed(maps: Tensor, boxes: Tensor) -> Tensor:
    """Enlarge map after map. The sizes are data: without Triton, the GPU is waited for once."""
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    finite = boxes.isfinite().all(1, keepdim=True)
    boxes = torch.where(finite, boxes.to(maps.dtype), 0.0)
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = sides.ceil()
    peaks = [
        _peak(heatmap, int(height), int(width))
        for heatmap, (width, height) in zip(maps, pixels.tolist(), strict=True)
    ]
    if not peaks:
        return maps.new_empty((0, maps.shape[1], 4), dtype=torch.float32)
    places, logits = (torch.stack(column) for column in zip(*peaks, strict=True))
    scores = 1 / (maps - logits[..., None, None]).exp().sum((2, 3))
    places = (places + 0.5) * (sides / pixels)[:, None] + boxes[:, None, :2]
    return torch.cat([places, logits[..., None], scores[..., None]], 2).float()


def _peak(heatmap: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the pixel (x, y) and the value of each keypoint's peak in the enlarged map."""
    enlarged = interpolate(heatmap[None], (height, width), mode="bicubic", align_corners=False)
    flat = enlarged[0].flatten(1)
    place = flat.argmax(1)
    pixel = torch.stack([place % width, torch.div(place, width, rounding_mode="floor")], 1)
    return pixel.to(heatmap.dtype), flat.gather(1, place[:, None])[:, 0]


@keypoints_of_heatmaps.register_fake
def _(maps: Tensor, boxes: Tensor) -> Tensor:
    return maps.new_empty((*maps.shape[:2], 4), dtype=torch.float32)


explain("fxtrt::keypoints_of_heatmaps", "it resizes each map to the size of its box")
