"""Models that artifacts are tested with, which other processes can import."""

from __future__ import annotations

import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.export import Dim

__all__ = ["CASES", "Batch", "Cut", "Sized", "case", "detector"]


def _doubled(module: Any) -> Callable[[float], float]:
    return functools.partial(lambda factor, x: float(module.sqrt(x)) * factor, 2)


class Sized(nn.Module):
    """Convolutions for images of any size, with a list among its attributes."""

    upper = False

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.factors = [2, 0.5]
        self.log = logging.getLogger("artifacts")
        self.config = SimpleNamespace(names={"first", "second", "third"}, scale=_doubled(math))
        self.config.itself = self.config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.first(x)))
        z = torch.sigmoid(self.second(y)) * self.factors[0]
        wide: torch.Tensor = nn.functional.interpolate(z, y.shape[2:], mode="nearest")
        return wide + y * self.factors[1]


class Nested(nn.Module):
    """Dictionaries in and out, a flag among the arguments, and constants that are no weights."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.linear.weight
        self.offsets = torch.tensor([[0.25, -1.0, 3.0, 0.5]])

    def forward(self, inputs: dict[str, Any], *, double: bool = True) -> OrderedDict[str, Any]:
        x = self.tied(torch.relu(self.linear(inputs["x"]))) + self.offsets
        grid = torch.arange(4, dtype=torch.float32) / 4 - torch.tensor([1.0, 2.0, 3.0, 4.0])
        pair = (x * grid * (2 if double else 1), [torch.tanh(x), inputs["scale"] * x])
        return OrderedDict(pair=pair, sum=x.sum(dim=0))


class Selecting(nn.Module):
    """How many rows it gives depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.relu(self.linear(x) * 2 - 1) * 0.5
        found = torch.nonzero(rows[:, 0]).squeeze(1)
        kept = rows[found]
        return torch.relu(kept * 3 - 1) + 1, found


class Rows(nn.Module):
    """As many rows out as in."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.linear(x)) * 2 + 1


class Batch(nn.Module):
    """Takes a list of images, each by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[torch.Tensor], factor: int) -> list[torch.Tensor]:
        return [torch.relu(self.conv(image) * factor) + i for i, image in enumerate(images)]


class Cut(nn.Module):
    """A model that does not export as a whole: two parts of it do."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.backbone(x).permute(0, 2, 3, 1).reshape(-1, 4)
        if rows.sum() > 1e9:
            raise ValueError("unreachable, and enough to stop an export")
        result: torch.Tensor = self.head(rows[:40])
        return result


def _image(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def _rows_of(count: int) -> torch.Tensor:
    return _image(16, 24).reshape(-1, 8)[:count]


def _rows() -> dict[str, Any]:
    return {"x": _image(8, 8).reshape(-1, 4), "scale": torch.tensor(3.0)}


_SIDES = {2: Dim("height", min=4, max=64), 3: Dim("width", min=4, max=64)}
_EVEN = {2: 2 * Dim("half", min=2, max=32), 3: Dim.DYNAMIC(min=4, max=64)}
CASES: dict[str, tuple[Callable[[], nn.Module], Any, list[tuple[Any, ...]]]] = {
    "static": (Sized, None, [(_image(16, 24),)]),
    "dynamic": (Sized, (_SIDES,), [(_image(16, 24),), (_image(5, 9),), (_image(64, 33),)]),
    "from one": (Rows, ({0: Dim("rows", min=1, max=64)},), [(_rows_of(9),), (_rows_of(1),)]),
    "even": (Sized, (_EVEN,), [(_image(16, 24),), (_image(18, 25),), (_image(17, 25),)]),
    "nested": (Nested, None, [(_rows(),)]),
    "selecting": (Selecting, None, [(_image(8, 8).reshape(-1, 8),)]),
    "parts": (Cut, None, [(_image(16, 24),), (_image(16, 16),)]),
}
"""By name: the class, `dynamic_shapes`, and calls, the first of which is the example."""


def case(name: str) -> nn.Module:
    """The model, with the same weights at every call."""
    torch.manual_seed(0)
    return CASES[name][0]().eval()


def detector() -> tuple[nn.Module, tuple[Any, ...]]:
    """torchvision's Faster R-CNN on a small backbone, which finds something in anything."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Conv2d(8, 16, 5, 4), nn.ReLU())
    backbone.out_channels = 16  # type: ignore[assignment]  # an int, as torchvision asks for
    anchors = AnchorGenerator(((32, 64),), ((0.5, 1.0),))
    model = FasterRCNN(backbone, 3, 96, 128, rpn_anchor_generator=anchors, box_score_thresh=0)
    return model.eval(), ([torch.rand(3, 64, 96)],)
