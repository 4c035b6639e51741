"""torchvision's detectors on two convolutions with two levels: quick to capture, and complete."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    RetinaNet,
    ssd300_vgg16,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fxtrt.diagnostics.example_models import calibrate, load_photograph

__all__ = ["images", "large_one_stage", "large_rcnn", "small_one_stage", "small_rcnn"]

_IMAGES = {"min_size": 128, "max_size": 160}
_ALL = {"num_classes": 5, **_IMAGES}
_RCNN = {
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 60,
    "box_detections_per_img": 10,
    **_ALL,
}
_ONE_STAGE = {"topk_candidates": 50, "detections_per_img": 10, **_ALL}
_SIZES = ((32,), (64,))
_RATIOS = (0.5, 1.0, 2.0)


class TwoLevels(nn.Module):
    """Features of strides 8 and 16."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 11, 8, 5)
        self.second = nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        fine = self.first(x).relu()
        return {"0": fine, "1": self.second(fine).relu()}


def images(count: int) -> list[torch.Tensor]:
    """Pictures of different sizes."""
    photograph = torch.nn.functional.avg_pool2d(load_photograph(), 4)
    return [photograph, photograph.flip(2)[:, :100]][:count]


@cache
def small_rcnn(kind: Any) -> Any:
    """A calibrated Faster, Mask or Keypoint R-CNN: it finds ten boxes in each image."""
    torch.manual_seed(0)
    pools = {FasterRCNN: None, MaskRCNN: "mask_roi_pool", KeypointRCNN: "keypoint_roi_pool"}
    options: dict[str, Any] = {"box_roi_pool": _pool(7)}
    if (own := pools[kind]) is not None:
        options[own] = _pool(14)
    anchors = AnchorGenerator(_SIZES, (_RATIOS,) * 2)
    return _calibrated(kind(TwoLevels(), rpn_anchor_generator=anchors, **options, **_RCNN))


def _pool(size: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(["0", "1"], size, 2)


@cache
def large_rcnn(kind: Any) -> Any:
    """The same on ResNet-18 with a pyramid of five levels."""
    torch.manual_seed(0)
    return _calibrated(kind(resnet_fpn_backbone(backbone_name="resnet18", weights=None), **_RCNN))


@cache
def small_one_stage(kind: str) -> Any:
    """A calibrated RetinaNet, FCOS or SSD."""
    torch.manual_seed(0)
    backbone: Any = TwoLevels()
    if kind == "SSD":
        backbone.out_channels = [32, 32]
        boxes = DefaultBoxGenerator([[2], [2, 3]], scales=[0.2, 0.5, 0.8])
        ssd = SSD(backbone, boxes, (128, 128), num_classes=5, detections_per_img=10)
        return _calibrated(ssd)
    if kind == "FCOS":
        return _calibrated(
            FCOS(backbone, anchor_generator=AnchorGenerator(_SIZES, ((1.0,),) * 2), **_ONE_STAGE)
        )
    anchors = AnchorGenerator(_SIZES, (_RATIOS,) * 2)
    return _calibrated(RetinaNet(backbone, anchor_generator=anchors, **_ONE_STAGE))


@cache
def large_one_stage(kind: str) -> Any:
    """The same on ResNet-18 with a pyramid, and SSD as torchvision has it."""
    torch.manual_seed(0)
    if kind == "SSD":
        small = {"num_classes": 5, "detections_per_img": 10}
        return _calibrated(ssd300_vgg16(weights=None, weights_backbone=None, **small))
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return _calibrated({"FCOS": FCOS, "RetinaNet": RetinaNet}[kind](backbone, **_ONE_STAGE))


def _calibrated(model: Any) -> Any:
    with torch.no_grad():
        calibrate(model.eval(), (images(1),))
    return model
