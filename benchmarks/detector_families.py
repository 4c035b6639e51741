"""Turns each family of Detectron2 into a calibrated model with random weights, and an example."""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fxtrt.diagnostics.example_models import calibrate, load_photograph

__all__ = ["FAMILIES", "POINT_REND", "ROTATED", "Family"]

_SIZE = (480, 640)


@dataclass(frozen=True, slots=True)
class Family:
    """One model of Detectron2's zoo.

    config:  the path in the zoo of a YAML file, or of a LazyConfig (not in Detectron2 0.4).
    options: changes to a YAML config.
    adapt:   a function that changes a YAML config before them, or the model of a LazyConfig.
    notes:   how its measurement differs from the others.
    size:    the height and width of the image.
    """

    name: str
    config: str
    options: tuple[Any, ...] = ()
    adapt: Callable[[Any], None] | None = None
    notes: str = ""
    size: tuple[int, int] = _SIZE

    def build(self) -> tuple[torch.nn.Module, list[dict[str, Any]]]:
        """Return the model in eval mode, and an example of one image."""
        torch.manual_seed(0)
        model = self.model().eval()
        image = torch.nn.functional.interpolate(load_photograph()[None] * 255, self.size)[0]
        example = [{"image": image, "height": self.size[0], "width": self.size[1]}]
        calibrate(model, (example,))
        return model, example

    def model(self) -> torch.nn.Module:
        """Return the model on the CPU with plain random weights, in training mode."""
        from detectron2 import model_zoo
        from detectron2.modeling import build_model

        cfg = model_zoo.get_config(self.config)
        is_yaml = self.config.endswith(".yaml")
        if self.adapt is not None:
            self.adapt(cfg if is_yaml else cfg.model)
        if is_yaml:
            cfg.merge_from_list(["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", *self.options])
            return build_model(cfg)  # type: ignore[no-any-return]  # untyped
        from detectron2.config import instantiate

        return instantiate(cfg.model)  # type: ignore[no-any-return]  # untyped


def _small_square(model: Any) -> None:
    model.backbone.square_pad = 512
    model.backbone.net.img_size = 512


def _swin(embed_dim: int, middle_depth: int, heads: int) -> Callable[[Any], None]:
    """Return a function that changes a model as a config of Detectron2's repository does.

    It is projects/ViTDet/configs/COCO/cascade_mask_rcnn_swin_b_in21k_50ep.py.
    """

    def adapt(model: Any) -> None:
        from detectron2.config import LazyCall
        from detectron2.modeling import SwinTransformer

        _layer_norms(model)
        model.backbone.bottom_up = LazyCall(SwinTransformer)(
            depths=[2, 2, middle_depth, 2],
            embed_dim=embed_dim,
            num_heads=[heads * 2**stage for stage in range(4)],
        )
        model.backbone.in_features = ("p0", "p1", "p2", "p3")

    return adapt


def _mvit(depth: int, last_blocks: tuple[int, ...]) -> Callable[[Any], None]:
    """Return a function that changes a model as a config of Detectron2's repository does.

    It is projects/ViTDet/configs/COCO/cascade_mask_rcnn_mvitv2_b_in21k_100ep.py.
    """

    def adapt(model: Any) -> None:
        from detectron2.config import LazyCall
        from detectron2.modeling import MViT

        _layer_norms(model)
        model.backbone.bottom_up = LazyCall(MViT)(
            embed_dim=96,
            depth=depth,
            num_heads=1,
            last_block_indexes=last_blocks,
            residual_pooling=True,
            norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
            out_features=("scale2", "scale3", "scale4", "scale5"),
        )
        model.backbone.in_features = "${.bottom_up.out_features}"

    return adapt


def _layer_norms(model: Any) -> None:
    """Set what both have in common: square images, norms in all heads, two convolutions for RPN."""
    model.backbone.square_pad = 512
    model.backbone.norm = model.roi_heads.mask_head.conv_norm = "LN"
    for head in model.roi_heads.box_heads:
        head.conv_dims, head.fc_dims, head.conv_norm = [256] * 4, [1024], "LN"
    model.proposal_generator.head.conv_dims = [-1, -1]


def _point_rend(cfg: Any) -> None:
    """Declare the options of a project, which is a folder of Detectron2's repository."""
    # The project imports OpenCV for training.
    if importlib.util.find_spec("cv2") is None:
        sys.modules["cv2"] = types.ModuleType("cv2")
    from detectron2.projects.point_rend import add_pointrend_config

    add_pointrend_config(cfg)


def _panoptic_deeplab(cfg: Any) -> None:
    """Read a config of a project, which is a folder of Detectron2's repository."""
    # The project imports panopticapi for training.
    if importlib.util.find_spec("panopticapi") is None:
        names = types.ModuleType("panopticapi"), types.ModuleType("panopticapi.utils")
        names[1].rgb2id = None  # type: ignore[attr-defined]  # a stand-in
        sys.modules.update({module.__name__: module for module in names})
    from detectron2.projects import panoptic_deeplab

    panoptic_deeplab.add_panoptic_deeplab_config(cfg)
    folder = Path(panoptic_deeplab.__file__).resolve().parent.parent / "configs"
    cfg.merge_from_file(str(folder / _CITYSCAPES))


_CITYSCAPES = (
    "Cityscapes-PanopticSegmentation/"
    "panoptic_deeplab_R_52_os16_mg124_poly_90k_bs32_crop_512_1024_dsconv.yaml"
)
POINT_REND = (
    *("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", True, "MODEL.ROI_MASK_HEAD.POOLER_TYPE", ""),
    *("MODEL.ROI_MASK_HEAD.NAME", "PointRendMaskHead", "MODEL.ROI_MASK_HEAD.FC_DIM", 1024),
    *("MODEL.ROI_MASK_HEAD.NUM_FC", 2, "MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION", 7),
    *("MODEL.ROI_MASK_HEAD.IN_FEATURES", ["p2"], "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON", True),
    *("MODEL.POINT_HEAD.FC_DIM", 256, "MODEL.POINT_HEAD.NUM_FC", 3),
    *("MODEL.POINT_HEAD.IN_FEATURES", ["p2"]),
)
ROTATED = (
    *("MODEL.PROPOSAL_GENERATOR.NAME", "RRPN"),
    *("MODEL.ANCHOR_GENERATOR.NAME", "RotatedAnchorGenerator"),
    *("MODEL.ANCHOR_GENERATOR.ANGLES", [[-60, 0, 60]]),
    *("MODEL.RPN.BBOX_REG_WEIGHTS", [1.0] * 5),
    *("MODEL.ROI_HEADS.NAME", "RROIHeads", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated"),
    *("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", [10.0, 10.0, 5.0, 5.0, 1.0]),
)
_STAND_IN = "tests/support/detectron2_kernels.py in place of kernels of `_C`"
_DETECTION, _MASK = "COCO-Detection", "COCO-InstanceSegmentation"
_LATER = "not in Detectron2 0.4"
_SQUARE = f"{_LATER}; here an image of 384x512, padded to 512x512"
_LANDSCAPE = (384, 512)
_CASCADE = "common/models/cascade_rcnn.py"
_NEW = "new_baselines/mask_rcnn_regnet{}_4gf_dds_FPN_100ep_LSJ.py"
FAMILIES = (
    Family("Faster R-CNN R50-FPN", f"{_DETECTION}/faster_rcnn_R_50_FPN_1x.yaml"),
    Family(
        "Faster R-CNN R50-C4",
        f"{_DETECTION}/faster_rcnn_R_50_C4_1x.yaml",
        ("MODEL.RPN.POST_NMS_TOPK_TEST", 100),
        notes="here with 100 proposals",
    ),
    Family(
        "Faster R-CNN R50-DC5",
        f"{_DETECTION}/faster_rcnn_R_50_DC5_1x.yaml",
        notes="eager on a CPU is itself 2e-03 (boxes) and 2e-05 (scores) from float64",
    ),
    Family("Faster R-CNN X101-32x8d-FPN", f"{_DETECTION}/faster_rcnn_X_101_32x8d_FPN_3x.yaml"),
    Family("RetinaNet R50", f"{_DETECTION}/retinanet_R_50_FPN_1x.yaml"),
    Family("RPN R50-FPN", f"{_DETECTION}/rpn_R_50_FPN_1x.yaml"),
    Family("FCOS R50-FPN", f"{_DETECTION}/fcos_R_50_FPN_1x.py", notes=_LATER),
    Family("Mask R-CNN R50-FPN", f"{_MASK}/mask_rcnn_R_50_FPN_1x.yaml"),
    Family("Mask R-CNN R50-FPN, GroupNorm", "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml"),
    Family("Cascade Mask R-CNN R50-FPN", "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"),
    Family("Keypoint R-CNN R50-FPN", "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"),
    Family("Panoptic FPN R50", "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"),
    Family("Semantic FPN R50", "Misc/semantic_R_50_FPN_1x.yaml"),
    Family(
        "Mask R-CNN RegNetX-4GF-FPN",
        _NEW.format("x"),
        notes=f"{_LATER}; eager on a CPU is itself 1e-05 (scores) from float64",
    ),
    Family("Mask R-CNN RegNetY-4GF-FPN", _NEW.format("y"), notes=_LATER),
    Family(
        "Mask R-CNN ViTDet-B",
        "common/models/mask_rcnn_vitdet.py",
        adapt=_small_square,
        notes=_SQUARE,
        size=_LANDSCAPE,
    ),
    *(
        Family(f"Cascade Mask R-CNN {name}", _CASCADE, (), adapt, _SQUARE, _LANDSCAPE)
        for name, adapt in (
            ("Swin-T", _swin(96, 6, 3)),
            ("Swin-B", _swin(128, 18, 4)),
            ("MViTv2-T", _mvit(10, (0, 2, 7, 9))),
            ("MViTv2-B", _mvit(24, (1, 4, 20, 23))),
        )
    ),
    Family(
        "Faster R-CNN R50-FPN, rotated boxes",
        f"{_DETECTION}/faster_rcnn_R_50_FPN_1x.yaml",
        ROTATED,
        notes=f"RRPN; {_STAND_IN}",
    ),
    Family(
        "Mask R-CNN R50-FPN, deformable",
        "Misc/mask_rcnn_R_50_FPN_1x_dconv_c3-c5.yaml",
        notes=f"{_STAND_IN}; "
        "eager on a CPU is itself 1e-03 (boxes) and 6e-05 (scores) from float64",
    ),
    Family(
        "PointRend R50-FPN",
        f"{_MASK}/mask_rcnn_R_50_FPN_1x.yaml",
        POINT_REND,
        _point_rend,
        "a project of Detectron2, in parts",
    ),
    Family(
        "Panoptic-DeepLab R52",
        "Misc/semantic_R_50_FPN_1x.yaml",
        ("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.INS_EMBED_HEAD.NORM", "BN"),
        _panoptic_deeplab,
        "a project of Detectron2; here an image of 512x1024",
        (512, 1024),
    ),
)
