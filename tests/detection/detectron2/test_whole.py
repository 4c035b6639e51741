"""Detectron2's architectures are captured whole, equal to the bit, and engines do their work; more
of them with dynamic sizes: tests/detection/detectron2/test_sizes.py (`-m detectron2`)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from detection_limits import assert_close
from detectron2_package import require_detectron2
from small_detectron2 import ARCHITECTURES
from torch.utils import _pytree as pytree

import fxtrt
from fxtrt.capture.export import capture_module
from fxtrt.detection import with_equivalents
from fxtrt.engines.target import Target
from fxtrt.lowering.lower import lower
from fxtrt.settings import Settings

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]


@dataclass(frozen=True, slots=True)
class Case:
    """An architecture, small.

    options: of its config, besides `SMALL`.
    count: of images, of different sizes.
    """

    config: str
    options: tuple[Any, ...] = ()
    count: int = 1


TWO_LEVELS = (
    *("MODEL.RPN.IN_FEATURES", ["p2", "p3"], "MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3"]),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["p2", "p3"]),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[64], [160]]),
)
"""Two levels of the pyramid, because capturing takes long for each; "RPN" has all levels."""
R_18 = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
SMALL = ("MODEL.RPN.POST_NMS_TOPK_TEST", 30, "TEST.DETECTIONS_PER_IMAGE", 10)
CASES = {
    "Mask R-CNN": Case(
        "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", (*R_18, *TWO_LEVELS)
    ),
    "Faster R-CNN, C4": Case("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml", R_18),
    "Keypoint R-CNN": Case("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", (*R_18, *TWO_LEVELS)),
    "Cascade R-CNN": Case(
        "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", (*R_18, *TWO_LEVELS, "MODEL.MASK_ON", False)
    ),
    "RetinaNet": Case("COCO-Detection/retinanet_R_50_FPN_1x.yaml", R_18),
    "RPN": Case("COCO-Detection/rpn_R_50_FPN_1x.yaml", R_18),
    "Panoptic FPN": Case(
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
        (*R_18, *TWO_LEVELS, "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.05),
    ),
    "Semantic FPN": Case("Misc/semantic_R_50_FPN_1x.yaml", R_18, count=2),
}


@cache
def detector(name: str) -> torch.nn.Module:
    """A calibrated model: it finds something in the photograph."""
    require_detectron2()
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    from fxtrt.diagnostics.example_models import calibrate

    case = CASES[name]
    cfg = model_zoo.get_config(case.config)
    options = ("MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", *SMALL, *case.options)
    cfg.merge_from_list(list(options))
    torch.manual_seed(0)
    model: torch.nn.Module = build_model(cfg).eval()
    calibrate(model, (pictures(1),))
    return model


def pictures(count: int) -> list[dict[str, Any]]:
    """The photograph, and a part of it in another size."""
    from fxtrt.diagnostics.example_models import load_photograph

    photograph = torch.nn.functional.interpolate(load_photograph()[None] * 255, (160, 192))[0]
    first = {"image": photograph, "height": 200, "width": 250}
    return [first, {"image": photograph[:, :128, :160], "height": 128, "width": 160}][:count]


def calls_of(name: str) -> list[list[dict[str, Any]]]:
    """The example; a mirror of it; and one whose first image has nothing, not even a proposal."""
    example = pictures(CASES[name].count)
    mirrored = [one | {"image": one["image"].flip(2)} for one in example]
    nothing = example[0] | {"image": torch.full_like(example[0]["image"], torch.nan)}
    return [example, mirrored, [nothing, *example[1:]]]


@pytest.mark.parametrize("name", [name for name in CASES if name not in ARCHITECTURES])
def test_the_whole_architecture(name: str) -> None:
    model, calls = detector(name), calls_of(name)
    expected = [model(call) for call in calls]
    assert_found(name, expected)
    with with_equivalents(model):
        graph = capture_module(model, (calls[0],))
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    for call, wanted in zip(calls, expected, strict=True):
        assert_same(graph(call), wanted)
    target = Target.of(Settings(engine="reference"))
    lowered = lower(graph, target, pytree.tree_leaves(calls[0]))
    assert lowered.coverage.flops_share == 1.0
    for call, wanted in zip(calls, expected, strict=True):
        assert_close(lowered.graph(call), wanted)


def assert_found(name: str, answers: list[Any]) -> None:
    """The photographs have what the model is for, and the last call's first image has nothing."""
    if name == "Semantic FPN":
        return
    key = "proposals" if name == "RPN" else "instances"
    counts = [[len(one[key]) for one in answer] for answer in answers]
    assert min(counts[0] + counts[1]) > 0
    assert counts[2][0] == 0
    assert all(counts[2][1:])
    if name == "Panoptic FPN":
        _, segments = answers[0][0]["panoptic_seg"]
        assert {one["isthing"] for one in segments} == {True, False}


def flat(value: Any) -> list[Any]:
    return list(pytree.tree_leaves(value))


def assert_same(actual: Any, expected: Any) -> None:
    assert len(flat(actual)) == len(flat(expected))
    for a, e in zip(flat(actual), flat(expected), strict=True):
        assert type(a) is type(e)
        if isinstance(e, torch.Tensor):
            torch.testing.assert_close(a, e, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == e


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_the_whole_architecture_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = copy.deepcopy(detector(name)).cuda()
    calls = [[one | {"image": one["image"].cuda()} for one in call] for call in calls_of(name)[:2]]
    compiled = fxtrt.compile(
        model,
        (calls[0],),
        engine="tensorrt",
        precision="fp32",
        dynamic_shapes={},
        cache_dir=None,
        on_build_failure="raise",
    )
    for call in calls:
        assert_close(compiled(call), model(call), wider=10)
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
    assert fxtrt.report(compiled).flops_share == 1.0
