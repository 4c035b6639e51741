"""Detectron2's architectures with a backbone of two layers: quick to capture with dynamic sizes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from detectron2_package import require_detectron2
from torch import nn

__all__ = ["ARCHITECTURES", "FAMILIES", "picture", "small_config", "small_detector"]

_LEVELS = {"p3": 8, "p4": 16, "p5": 32}
"""Strides."""
_COMMON = (
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", "small_backbone"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32, 64]], "TEST.DETECTIONS_PER_IMAGE", 10),
    *("MODEL.RETINANET.IN_FEATURES", ["p5"], "MODEL.RETINANET.NUM_CONVS", 1),
    *("MODEL.RETINANET.NUM_CLASSES", 5, "MODEL.ROI_HEADS.NUM_CLASSES", 5),
    *("MODEL.RPN.IN_FEATURES", ["p5"], "MODEL.RPN.POST_NMS_TOPK_TEST", 30),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p3"], "MODEL.ROI_BOX_HEAD.FC_DIM", 16),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", 1, "MODEL.ROI_MASK_HEAD.CONV_DIM", 8),
    *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8]),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p3"], "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32),
    *("MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 6),
    *("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.05),
)
_CONFIGS = {
    "RetinaNet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "Semantic FPN": "Misc/semantic_R_50_FPN_1x.yaml",
    "Panoptic FPN": "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
}
ARCHITECTURES = (*_CONFIGS, "FCOS")
"""The last of them is not in Detectron2 0.4."""
_REGION_CONFIGS = {
    "Faster R-CNN": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "Faster R-CNN, C4": "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
    "Mask R-CNN": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "Keypoint R-CNN": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    "Cascade R-CNN": "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
    "RPN": "COCO-Detection/rpn_R_50_FPN_1x.yaml",
}
FAMILIES = (*_REGION_CONFIGS, *ARCHITECTURES)
_TWO_LEVELS = (
    *("MODEL.RPN.IN_FEATURES", ["p3", "p4"], "MODEL.ROI_HEADS.IN_FEATURES", ["p3", "p4"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]]),
)
_C4 = (
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 4, "MODEL.RESNETS.WIDTH_PER_GROUP", 1),
    *("MODEL.MASK_ON", True),
)
"""Its head has a stage of ResNet, which takes the 16 channels of the small backbone."""


@cache
def _register_backbone() -> None:
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone

    class SmallBackbone(Backbone):  # type: ignore[misc]  # untyped
        size_divisibility = 32

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 11, 8, 5)
            self.second = nn.Conv2d(16, 16, 5, 4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            p3 = self.first(x).relu()
            p4 = nn.functional.max_pool2d(p3, 1, 2)
            return {"p3": p3, "p4": p4, "p5": self.second(p3).relu()}

        def output_shape(self) -> Any:
            return {name: ShapeSpec(channels=16, stride=stride) for name, stride in _LEVELS.items()}

    def small_backbone(cfg: Any, input_shape: Any) -> SmallBackbone:
        return SmallBackbone()

    BACKBONE_REGISTRY.register(small_backbone)


@cache
def small_detector(architecture: str, options: tuple[Any, ...] = ()) -> nn.Module:
    """A calibrated model: it finds something in `picture`.

    Args:
        options: of the config, after those of all small models; FCOS has no config.
    """
    require_detectron2()
    from fxtrt.diagnostics.example_models import calibrate

    _register_backbone()
    torch.manual_seed(0)
    model: nn.Module = _fcos() if architecture == "FCOS" else _of_config(architecture, options)
    model.eval()
    with torch.no_grad():
        calibrate(model, ([{"image": picture(160, 192), "height": 200, "width": 240}],))
    return model


def small_config(architecture: str) -> Any:
    """The config of a small model, without weights."""
    require_detectron2()
    from detectron2 import model_zoo

    _register_backbone()
    cfg = model_zoo.get_config({**_CONFIGS, **_REGION_CONFIGS}[architecture])
    cfg.merge_from_list(list(_COMMON))
    if architecture == "Faster R-CNN, C4":
        cfg.merge_from_list(list(_C4))
    elif architecture in _REGION_CONFIGS:
        cfg.merge_from_list(list(_TWO_LEVELS))
    return cfg


def _of_config(architecture: str, options: tuple[Any, ...]) -> Any:
    from detectron2.modeling import build_model

    cfg = small_config(architecture)
    cfg.merge_from_list(list(options))
    return build_model(cfg)


def _fcos() -> Any:
    from detectron2.modeling import BACKBONE_REGISTRY
    from detectron2.modeling.meta_arch.fcos import FCOS, FCOSHead

    backbone = BACKBONE_REGISTRY.get("small_backbone")(None, None)
    shapes = [backbone.output_shape()["p5"]]
    return FCOS(
        backbone=backbone,
        head=FCOSHead(input_shape=shapes, conv_dims=[32], num_classes=5, norm="GN"),
        head_in_features=["p5"],
        num_classes=5,
        test_score_thresh=0.05,
        max_detections_per_image=10,
        pixel_mean=[100.0, 100.0, 100.0],
        pixel_std=[1.0, 1.0, 1.0],
    )


def picture(height: int, width: int) -> torch.Tensor:
    """A photograph: (3, height, width), 0 to 255."""
    from fxtrt.diagnostics.example_models import load_photograph

    resized = nn.functional.interpolate(load_photograph()[None] * 255, (height, width))
    return resized[0]
