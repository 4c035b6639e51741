"""A detector of somebody else's, with and without a core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fxtrt.detection import Prepared

__all__ = ["SpotDetector", "SpotSteps"]

_MOST = 10


def padded(images: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes, strict=True))
    batch = images[0].new_zeros(len(images), 3, height, width)
    for image, place in zip(images, batch, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


class SpotDetector(nn.Module):
    """The places of the ten best scores of each image, as far as they exceed 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 1, 3, 2, 1))

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        batch, sizes = padded(images)
        spots = []
        for scores, (height, width) in zip(self.net(batch).sigmoid(), sizes, strict=True):
            best, cells = scores[0, : height // 4, : width // 4].flatten().topk(_MOST)
            cells = cells[best > 0.5]
            spots.append(torch.stack([cells % (width // 4), cells // (width // 4)], 1))
        return spots


class SpotCore(nn.Module):
    """Always returns ten places, and how many of them count."""

    def __init__(self, model: SpotDetector) -> None:
        super().__init__()
        self.net = model.net

    def forward(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.net(batch).sigmoid()[:, 0]
        rows, columns = (torch.arange(side, device=batch.device) for side in scores.shape[1:])
        cells_of = sizes // 4
        inside = rows[:, None] < cells_of[:, 0, None, None]
        inside = inside & (columns < cells_of[:, 1, None, None])
        best, cells = torch.where(inside, scores, 0.0).flatten(1).topk(_MOST)
        width = scores.shape[2]
        return torch.stack([cells % width, cells // width], 2), (best > 0.5).sum(1)


class SpotSteps:
    """The steps around the core; see `HostSteps`."""

    def __init__(self, model: SpotDetector) -> None:
        self.core: nn.Module = SpotCore(model)

    def before(self, images: list[Tensor]) -> Prepared:
        batch, sizes = padded(images)
        return Prepared((batch, torch.tensor(sizes, device=batch.device)), None)

    def after(self, outputs: Any, context: None) -> list[Tensor]:
        spots, counts = outputs
        return [found[:count] for found, count in zip(spots, counts.tolist(), strict=True)]

    def example(self, inputs: tuple[Tensor, ...], most_images: int) -> tuple[Tensor, ...]:
        return tuple(torch.cat([one, one]) for one in inputs) if most_images > 1 else inputs

    def dynamic_shapes(self, inputs: tuple[Tensor, ...], most_images: int) -> Any:
        count = {0: Dim("images", min=1, max=most_images)} if inputs[0].shape[0] > 1 else {}
        rows, columns = (Dim(name, min=2, max=40) for name in ("rows", "columns"))
        return {**count, 2: 32 * rows, 3: 32 * columns}, count or None
