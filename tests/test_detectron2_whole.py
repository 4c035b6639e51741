"""Detectron2's architectures are captured whole, equal to the bit, and engines do their work
(`-m detectron2`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from torch.utils import _pytree as pytree

from fxtrt.backend import lower
from fxtrt.capture import capture_module
from fxtrt.comparison import pair
from fxtrt.detection import planned
from fxtrt.engines.select import select
from fxtrt.pass_manager import run_passes
from fxtrt.settings import Settings

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

LARGEST = {"pred_boxes": 1e-2, "proposal_boxes": 1e-2, "pred_keypoints": 1e-2, "scores": 1e-4}
"""Differences of engines, in pixels and probabilities."""
RELATIVE = 1e-4
"""Of any other output, as a share of its largest magnitude."""
MASKS = 1e-4
"""The share of a mask's pixels that may differ: rounding decides those at the threshold."""


@dataclass(frozen=True, slots=True)
class Case:
    """An architecture, small.

    options: of its config, besides `SMALL`.
    count: of images, of different sizes.
    """

    config: str
    options: tuple[Any, ...] = ()
    count: int = 1


R_18 = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
SMALL = ("MODEL.RPN.POST_NMS_TOPK_TEST", 30, "TEST.DETECTIONS_PER_IMAGE", 10)
CASES = {
    "Mask R-CNN": Case("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", R_18, count=2),
    "Mask R-CNN, C4": Case("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"),
    "Faster R-CNN, DC5": Case("COCO-Detection/faster_rcnn_R_50_DC5_1x.yaml"),
    "Keypoint R-CNN": Case("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml", R_18),
    "Cascade R-CNN": Case(
        "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", (*R_18, "MODEL.MASK_ON", False)
    ),
    "RetinaNet": Case("COCO-Detection/retinanet_R_50_FPN_1x.yaml", R_18, count=2),
    "RPN": Case("COCO-Detection/rpn_R_50_FPN_1x.yaml", R_18),
    "Panoptic FPN": Case(
        "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
        (*R_18, "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH", 0.05),
    ),
    "Semantic FPN": Case("Misc/semantic_R_50_FPN_1x.yaml", R_18, count=2),
}


@cache
def detector(name: str) -> torch.nn.Module:
    """A calibrated model: it finds something in the photograph."""
    require_detectron2()
    from detectron2 import model_zoo
    from detectron2.modeling import build_model

    from fxtrt.examples import calibrate

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
    from fxtrt.examples import load_photograph

    photograph = torch.nn.functional.interpolate(load_photograph()[None] * 255, (160, 192))[0]
    first = {"image": photograph, "height": 200, "width": 250}
    return [first, {"image": photograph[:, :128, :160], "height": 128, "width": 160}][:count]


def calls_of(name: str) -> list[list[dict[str, Any]]]:
    """The example; a mirror of it; and one whose first image has nothing, not even a proposal."""
    example = pictures(CASES[name].count)
    mirrored = [one | {"image": one["image"].flip(2)} for one in example]
    nothing = example[0] | {"image": torch.full_like(example[0]["image"], torch.nan)}
    return [example, mirrored, [nothing, *example[1:]]]


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", CASES)
def test_the_whole_architecture(name: str) -> None:
    model, calls = detector(name), calls_of(name)
    expected = [model(call) for call in calls]
    assert_found(name, expected)
    with planned(model):
        graph = capture_module(model, (calls[0],))
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    for call, wanted in zip(calls, expected, strict=True):
        assert_same(graph(call), wanted)
    run_passes(graph)
    settings = Settings(engine="reference")
    stitched, coverage = lower(graph, select("reference"), settings, pytree.tree_leaves(calls[0]))
    assert coverage.flops_share == 1.0
    for call, wanted in zip(calls, expected, strict=True):
        assert_close(stitched(call), wanted)


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


def assert_close(actual: Any, expected: Any) -> None:
    for one, wanted in zip(actual, expected, strict=True):
        assert one.keys() == wanted.keys()
        for key, value in wanted.items():
            if key in ("instances", "proposals"):
                assert_close_instances(one[key], value)
            elif key == "sem_seg":
                limit = RELATIVE * float(value.nan_to_num().abs().max())
                torch.testing.assert_close(one[key], value, rtol=0, atol=limit, equal_nan=True)
            else:
                panoptic, segments = value
                assert len(one[key][1]) == len(segments)
                assert (one[key][0] != panoptic).float().mean() <= 1e-3


def assert_close_instances(actual: Any, expected: Any) -> None:
    assert len(actual) == len(expected)
    found, wanted = (paired_by(one) for one in (actual, expected))
    a, e = pair(found, wanted)
    assert torch.equal(found["labels"][a], wanted["labels"][e])
    for name, field in expected.get_fields().items():
        value = getattr(field, "tensor", field)[e]
        other = getattr(actual.get(name), "tensor", actual.get(name))[a]
        if value.dtype == torch.bool:
            assert (value != other).float().mean() <= MASKS if len(value) else True
        elif len(value):
            limit = LARGEST.get(name, RELATIVE * float(value.abs().max()))
            assert (value.double() - other.double()).abs().max() <= limit, name


def paired_by(instances: Any) -> dict[str, torch.Tensor]:
    """Boxes, scores and labels, of detections or proposals."""
    fields = instances.get_fields()
    boxes = fields.get("pred_boxes", fields.get("proposal_boxes")).tensor
    scores = fields.get("scores", fields.get("objectness_logits"))
    labels = fields.get("pred_classes", torch.zeros(len(boxes), dtype=torch.int64))
    return {"boxes": boxes, "scores": scores, "labels": labels}
