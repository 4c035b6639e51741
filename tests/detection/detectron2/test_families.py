"""Families of Detectron2 that need kernels of its compiled part, or more than one call of a model
(`-m detectron2`). Where that part is absent, tests/support/detectron2_kernels.py stands in."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from detector_agreement import differences
from detector_families import ROTATED
from detectron2_package import require_detectron2
from torch.export import Dim

import fxtrt

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

LIMITS = {"count": 0.0, "classes": 0.0, "pred_boxes": 1e-2, "proposal_boxes": 1e-2, "scores": 1e-4}
FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
SMALL = (
    *("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu"),
    *("MODEL.RPN.PRE_NMS_TOPK_TEST", 50, "MODEL.RPN.POST_NMS_TOPK_TEST", 30),
    *("TEST.DETECTIONS_PER_IMAGE", 10),
)
TWO_LEVELS = (
    *("MODEL.RESNETS.OUT_FEATURES", ["res4", "res5"], "MODEL.FPN.IN_FEATURES", ["res4", "res5"]),
    *("MODEL.RPN.IN_FEATURES", ["p4", "p5"], "MODEL.ROI_HEADS.IN_FEATURES", ["p4", "p5"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64]]),
)
"""Few levels of the pyramid, because torch.export takes long for each."""
R_18 = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
BACKBONE_SIZES = (("batch", 3), ("rows", 8), ("columns", 8))
DEFORMABLE = ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, False, False, True])


def config(name: str, *options: Any) -> Any:
    require_detectron2()
    from detectron2 import model_zoo

    cfg = model_zoo.get_config(name)
    cfg.merge_from_list([*SMALL, *TWO_LEVELS, *options])
    return cfg


def calibrated(cfg: Any) -> torch.nn.Module:
    from detectron2.modeling import build_model

    from fxtrt.diagnostics.example_models import calibrate

    torch.manual_seed(0)
    model: torch.nn.Module = build_model(cfg).eval()
    calibrate(model, (example(),))
    return model


@cache
def photograph() -> torch.Tensor:
    from fxtrt.diagnostics.example_models import load_photograph

    return torch.nn.functional.interpolate(load_photograph()[None] * 255, (96, 128))[0]


def example(image: torch.Tensor | None = None) -> list[dict[str, Any]]:
    return [{"image": photograph() if image is None else image, "height": 120, "width": 150}]


def assert_same(compiled: Any, model: Any, *images: torch.Tensor, key: str = "instances") -> None:
    """For the photograph, its mirror image and others, in which nothing is found."""
    for image in (photograph(), photograph().flip(2), *images):
        call = example(image)
        actual, expected = compiled(call), model(call)
        assert bool(len(expected[0][key])) == bool(image.isfinite().all())
        found = differences(actual, expected)
        assert all(value <= LIMITS[name] for name, value in found.items() if name in LIMITS), found
    assert compiled.forward.fallbacks == {}


def reasons(compiled: torch.nn.Module) -> str:
    return "\n".join(row.detail for row in fxtrt.report(compiled).rejections)


def test_rotated_boxes_equal_eager() -> None:
    model = calibrated(config(FASTER, *R_18, *ROTATED))
    compiled = fxtrt.compile(model, (example(),), engine="reference", dynamic_shapes={})
    assert_same(compiled, model, torch.full_like(photograph(), torch.nan))
    assert fxtrt.report(compiled).flops_share == 1.0
    for kernel in ("batched_nms_rotated", "roi_align_rotated"):
        why = "a kernel of Detectron2's _C without a TensorRT layer"
        assert f"fxtrt.detectron2_{kernel}.default has no converter: {why}" in reasons(compiled)


def test_deformable_convolution_runs_in_engines() -> None:
    model = calibrated(config("COCO-Detection/rpn_R_50_FPN_1x.yaml", *DEFORMABLE))
    compiled = fxtrt.compile(model, (example(),), engine="reference", dynamic_shapes={})
    assert_same(compiled, model, key="proposals")
    ops = {op: n for row in fxtrt.report(compiled).clusters for op, n in row.ops}
    assert ops["torchvision.deform_conv2d.default"] == 3


def test_time_augmentation_finds_what_eager_finds() -> None:
    """It calls `model.inference`: its own way through the parts, of which the backbone has engines
    for every size and batch."""
    cfg = config(
        FASTER,
        *R_18,
        "TEST.AUG.ENABLED",
        True,
        "TEST.AUG.MIN_SIZES",
        (96, 128),
        "TEST.AUG.FLIP",
        True,
    )
    model = calibrated(cfg)
    from detectron2.modeling import GeneralizedRCNNWithTTA

    inputs = [{"image": photograph().byte(), "height": 120, "width": 150}]
    expected = GeneralizedRCNNWithTTA(cfg, model)(inputs)
    batch, rows, columns = (Dim(name, min=1, max=high) for name, high in BACKBONE_SIZES)
    backbone: Any = model.backbone
    fast = fxtrt.compile(
        backbone,
        (torch.zeros(2, 3, 96, 128),),
        dynamic_shapes=({0: batch, 2: 32 * rows, 3: 32 * columns},),
        engine="reference",
    )
    model.backbone = fast
    actual = GeneralizedRCNNWithTTA(cfg, model)(inputs)
    assert len(expected[0]["instances"]) > 0
    found = differences(actual, expected)
    assert all(value <= LIMITS[name] for name, value in found.items()), found
    guard: Any = fast.forward
    assert guard.fallbacks == {}
    assert fxtrt.report(fast).flops_share == 1.0
