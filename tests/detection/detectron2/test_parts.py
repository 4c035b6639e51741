"""Detectron2's detectors equal eager, whole and in parts (`-m detectron2`)."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2

import fxtrt
from fxtrt.capture.example_run import record_calls
from fxtrt.detection import recipe_of
from fxtrt.detection import recipes as recipes_module
from fxtrt.graph.specs import Call

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

PARTS = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml": (
        "backbone",
        "proposal_generator.rpn_head",
        "roi_heads.box_head",
        "roi_heads.box_predictor",
        "roi_heads.mask_head.deconv",
    ),
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x.yaml": ("roi_heads.keypoint_head.score_lowres",),
    "COCO-Detection/retinanet_R_50_FPN_3x.yaml": ("backbone", "head"),
}
NAMED = [(config, path) for config, paths in PARTS.items() for path in paths]
SMALL = (
    *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.RPN.IN_FEATURES", ("p2", "p3"), "MODEL.ROI_HEADS.IN_FEATURES", ("p2", "p3")),
    *("MODEL.ANCHOR_GENERATOR.SIZES", ((64,), (160,)), "TEST.DETECTIONS_PER_IMAGE", 10),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", 1),
)


@cache
def detector(config: str, options: tuple[Any, ...] = ()) -> tuple[torch.nn.Module, dict[str, Call]]:
    """A detector with random weights and calibrated norms, and how its parts were called."""
    require_detectron2()
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    from fxtrt.diagnostics.example_models import calibrate, load_photograph

    cfg = model_zoo.get_config(config)
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 100
    cfg.merge_from_list(list(options))
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    image = torch.nn.functional.interpolate(load_photograph()[None] * 255, (256, 320))[0]
    inputs = ([{"image": image}],)
    calibrate(model, inputs)
    calls, _ = record_calls(model, Call(inputs, {}))
    return model, calls


def tensors(value: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize(("config", "path"), NAMED)
def test_part_equals_eager(config: str, path: str) -> None:
    model, calls = detector(config)
    part, call = model.get_submodule(path), calls[path]
    compiled = fxtrt.compile(part, tuple(call.args), engine="reference", min_cluster_size=1)
    coverage = fxtrt.report(compiled)
    assert coverage.flops_share == 1.0, coverage
    assert len(coverage.clusters) == 1
    for actual, expected in zip(
        tensors(compiled(*call.args)), tensors(part(*call.args)), strict=True
    ):
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"


def test_a_model_without_a_recipe_is_compiled_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = detector(MASK_RCNN, SMALL)
    assert recipe_of(model) is not None
    monkeypatch.setattr(recipes_module, "_RECIPES", {})
    (inputs,) = calls[""].args
    compiled = fxtrt.compile(model, (inputs,), engine="reference")
    assert list(compiled.state_dict()) == list(model.state_dict())
    (expected,), (actual,) = model(inputs), compiled(inputs)
    expected, actual = expected["instances"], actual["instances"]
    assert len(actual) == len(expected)
    torch.testing.assert_close(actual.scores, expected.scores, atol=1e-4, rtol=0)
    modules = {row.modules for row in fxtrt.report(compiled).clusters}
    assert {"backbone", "proposal_generator.rpn_head", "roi_heads.box_head"} <= modules
