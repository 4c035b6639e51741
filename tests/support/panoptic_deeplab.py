"""Panoptic-DeepLab with a backbone of three layers, if Detectron2's repository is on the path."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from torch import nn

__all__ = ["small_panoptic_deeplab"]

_STRIDES = {"res2": 4, "res3": 8, "res5": 16}
_HEAD = (
    ("IN_FEATURES", list(_STRIDES)),
    ("PROJECT_FEATURES", ["res2", "res3"]),
    ("PROJECT_CHANNELS", [4, 4]),
    ("ASPP_CHANNELS", 8),
    ("ASPP_DILATIONS", [2, 3, 4]),
    ("HEAD_CHANNELS", 8),
    ("CONVS_DIM", 8),
    ("COMMON_STRIDE", 4),
    ("NORM", "BN"),
)
_OPTIONS = (
    *("MODEL.META_ARCHITECTURE", "PanopticDeepLab", "MODEL.DEVICE", "cpu"),
    *("MODEL.BACKBONE.NAME", "small_panoptic_backbone"),
    *("DATASETS.TRAIN", ("small_panoptic",), "INPUT.CROP.ENABLED", False),
    *("MODEL.SEM_SEG_HEAD.NAME", "PanopticDeepLabSemSegHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "MODEL.SEM_SEG_HEAD.LOSS_TYPE", "hard_pixel_mining"),
    *("MODEL.PANOPTIC_DEEPLAB.STUFF_AREA", 16, "MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE", 8),
)


@cache
def _register() -> None:
    from detectron2.data import MetadataCatalog
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import BACKBONE_REGISTRY, Backbone

    class SmallBackbone(Backbone):  # type: ignore[misc]  # untyped
        size_divisibility = 16

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(
                [nn.Conv2d(3, 8, 7, 4, 3), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)]
            )

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features = {}
            for name, layer in zip(_STRIDES, self.layers, strict=True):
                x = features[name] = layer(x).relu()
            return features

        def output_shape(self) -> Any:
            return {name: ShapeSpec(channels=8, stride=stride) for name, stride in _STRIDES.items()}

    def small_panoptic_backbone(cfg: Any, input_shape: Any) -> SmallBackbone:
        return SmallBackbone()

    BACKBONE_REGISTRY.register(small_panoptic_backbone)
    MetadataCatalog.get("small_panoptic").set(
        thing_dataset_id_to_contiguous_id={1: 1, 3: 3}, label_divisor=1000
    )


def small_panoptic_deeplab(*options: Any) -> nn.Module:
    """A model that finds segments, some of them things; the test is skipped without the project."""
    require_detectron2()
    _stand_in_for_panopticapi()
    project = pytest.importorskip(
        "detectron2.projects.panoptic_deeplab",
        reason="Panoptic-DeepLab comes with Detectron2's repository only",
    )
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    _register()
    cfg = get_cfg()
    project.add_panoptic_deeplab_config(cfg)
    heads = ("MODEL.SEM_SEG_HEAD", "MODEL.INS_EMBED_HEAD")
    shared = [part for head in heads for name, value in _HEAD for part in (f"{head}.{name}", value)]
    cfg.merge_from_list([*_OPTIONS, *shared, *options])
    torch.manual_seed(0)
    model: nn.Module = build_model(cfg).eval()
    _spread_out(model)
    return model


@cache
def _stand_in_for_panopticapi() -> None:
    """The project imports it for training."""
    if importlib.util.find_spec("panopticapi") is None:
        names = types.ModuleType("panopticapi"), types.ModuleType("panopticapi.utils")
        names[1].rgb2id = None  # type: ignore[attr-defined]  # a stand-in
        sys.modules.update({module.__name__: module for module in names})


def _spread_out(model: Any) -> None:
    """Makes outputs differ between pixels: the last layers are born with hardly any weights."""
    instances = model.ins_embed_head
    last = model.sem_seg_head.predictor, instances.center_predictor, instances.offset_predictor
    with torch.no_grad():
        for layer in last:
            layer.weight.mul_(1000.0)
