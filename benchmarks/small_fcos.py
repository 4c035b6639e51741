"""Makes torchvision's FCOS on a residual network so small that a CPU trains it in a minute."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork

__all__ = ["small_fcos"]

_CHANNELS = (16, 32, 48, 64)
_PYRAMID = 64
_ANCHORS = ((4,), (8,))
"""FCOS gives a box to the level whose anchor is a quarter to an eighth of its larger half."""


class SmallBackbone(nn.Module):
    """A residual network with batch norms, and a pyramid of the strides 8 and 16."""

    out_channels = _PYRAMID

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = _CHANNELS
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        self.stage2 = _halving(first, second)
        self.stage3 = _halving(second, third)
        self.stage4 = _halving(third, fourth)
        self.pyramid = FeaturePyramidNetwork([third, fourth], _PYRAMID)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.stage3(self.stage2(self.stem(x)))
        levels: dict[str, Tensor] = self.pyramid({"0": fine, "1": self.stage4(fine)})
        return levels


def _halving(taken: int, given: int) -> nn.Module:
    shortcut = nn.Sequential(nn.Conv2d(taken, given, 1, 2, bias=False), nn.BatchNorm2d(given))
    block: nn.Module = BasicBlock(taken, given, 2, shortcut)
    return block


def small_fcos(classes: int, size: tuple[int, int]) -> nn.Module:
    """Return an untrained detector of this many classes, the background left out."""
    anchors = AnchorGenerator(_ANCHORS, ((1.0,),) * len(_ANCHORS))
    model: nn.Module = FCOS(
        SmallBackbone(),
        num_classes=classes + 1,
        min_size=min(size),
        max_size=max(size),
        anchor_generator=anchors,
        head=FCOSHead(_PYRAMID, 1, classes + 1, num_convs=2),
        score_thresh=0.05,
        topk_candidates=100,
        detections_per_img=20,
    )
    return model
