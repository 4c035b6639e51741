"""torchvision's detectors are captured whole, equal to the bit, and compile as one graph."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")

from small_torchvision import (
    images,
    large_one_stage,
    large_rcnn,
    small_one_stage,
    small_rcnn,
)
from torch import nn
from torch.export import Dim
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

import fxtrt
from fxtrt.capture.export import capture_module
from fxtrt.detection import with_equivalents
from fxtrt.diagnostics.example_models import calibrate
from fxtrt.engines.target import Target
from fxtrt.lowering.lower import lower
from fxtrt.numerics.compare import compare
from fxtrt.runtime.guarded_forward import GuardedForward
from fxtrt.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_grad")]

RCNNS = [
    pytest.param(small_rcnn, id="small"),
    pytest.param(large_rcnn, marks=pytest.mark.nightly, id="ResNet-18"),
]
ONE_STAGE = [
    pytest.param(small_one_stage, id="small"),
    pytest.param(large_one_stage, marks=pytest.mark.nightly, id="large"),
]
Make = Callable[[Any], Any]


def leaves(value: Any) -> list[torch.Tensor]:
    return list(torch.utils._pytree.tree_leaves(value))


def engines_of(compiled: torch.nn.Module) -> dict[str, Any]:
    """The guards of the modules that have a compiled graph, by path."""
    found = {path: module.__dict__.get("forward") for path, module in compiled.named_modules()}
    return {path: guard for path, guard in found.items() if isinstance(guard, GuardedForward)}


def assert_same(actual: Any, expected: Any) -> None:
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        assert torch.equal(a, e)


@pytest.mark.parametrize("make", RCNNS)
@pytest.mark.parametrize(("kind", "count"), [(FasterRCNN, 2), (MaskRCNN, 1), (KeypointRCNN, 1)])
def test_the_whole_detector_is_one_graph(kind: Any, count: int, make: Make) -> None:
    model, inputs = make(kind), images(count)
    others = [torch.rand_like(image) for image in inputs]
    expected, expected_of_others = model(inputs), model(others)
    assert all(len(one["boxes"]) == 10 for one in expected)
    with with_equivalents(model):
        graph = capture_module(model, (inputs,))
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    assert_same(graph(inputs), expected)
    assert_same(graph(others), expected_of_others)


@pytest.mark.parametrize("make", ONE_STAGE)
@pytest.mark.parametrize("kind", ["RetinaNet", "FCOS", "SSD"])
def test_a_one_stage_detector_is_one_graph_and_engines_do_its_work(kind: str, make: Make) -> None:
    model, inputs = make(kind), images(1)
    nothing = [inputs[0] * torch.nan]
    calls = [inputs, [image.flip(1) for image in inputs], nothing]
    expected = [model(call) for call in calls]
    counts = [len(one["boxes"]) for (one,) in expected]
    assert min(counts[:2]) >= 5
    assert counts[2] == 0
    with with_equivalents(model):
        graph = capture_module(model, (inputs,))
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    for call, wanted in zip(calls, expected, strict=True):
        assert_same(graph(call), wanted)
    lowered = lower(graph, Target.of(Settings(engine="reference")), inputs)
    assert lowered.coverage.flops_share == 1.0
    for call, wanted in zip(calls, expected, strict=True):
        differences = compare(lowered.graph(call), wanted)
        assert all(difference.agrees for difference in differences), differences


def test_a_picture_twice_in_the_example_is_two_inputs() -> None:
    model, (picture,) = small_one_stage("RetinaNet"), images(1)
    other = picture.flip(1)
    expected = model([picture, other])
    assert len(expected[1]["boxes"]) > 5
    assert not torch.equal(expected[0]["boxes"], expected[1]["boxes"])
    fast: Any = fxtrt.compile(model, ([picture, picture],), engine="reference")
    differences = compare(fast([picture, other]), expected)
    assert all(difference.agrees for difference in differences), differences
    assert fast.forward.fallbacks == {}


@pytest.mark.parametrize("make", RCNNS)
@pytest.mark.parametrize("threshold", ["rpn.score_thresh", "roi_heads.score_thresh"])
def test_pictures_without_anything(
    threshold: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = make(MaskRCNN), images(2)
    path, _, name = threshold.rpartition(".")
    # No probability is above 2: the first leaves no proposals, the second no detections.
    monkeypatch.setattr(model.get_submodule(path), name, 2.0)
    expected = model(inputs)
    assert all(len(one["boxes"]) == 0 for one in expected)
    compiled = fxtrt.compile(model, (inputs,), engine="reference")
    assert_same(compiled(inputs), expected)
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


@pytest.mark.parametrize("make", RCNNS)
def test_engines_do_all_the_work(make: Make) -> None:
    model, inputs = make(MaskRCNN), images(1)
    compiled = fxtrt.compile(model, (inputs,), engine="reference")
    differences = compare(compiled(inputs), model(inputs))
    assert all(difference.agrees for difference in differences), differences
    coverage = fxtrt.report(compiled)
    assert coverage.flops_share == 1.0
    assert "capture" not in {row.code for row in coverage.rejections}
    working = [row for row in coverage.clusters if row.flops]
    assert len(working) == 3
    assert list(engines_of(compiled)) == [""], "one set of engines serves all sizes"
    for size in ((128, 150), (100, 128), (128, 128), (90, 150)):
        resized = [torch.nn.functional.interpolate(inputs[0][None], size)[0]]
        differences = compare(compiled(resized), model(resized))
        assert all(difference.agrees for difference in differences), (size, differences)
    more = [*images(2), images(1)[0].flip(2)]
    differences = compare(compiled(more), model(more))
    assert all(difference.agrees for difference in differences), differences
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


def test_images_that_are_too_large_run_in_pytorch() -> None:
    model, inputs = copy.deepcopy(small_rcnn(FasterRCNN)), images(1)
    compiled: Any = fxtrt.compile(model, (inputs,), engine="reference")
    for detector in (model, compiled):
        detector.transform.max_size = 320
    wide = [torch.nn.functional.interpolate(inputs[0][None], (100, 250))[0]]
    assert_same(compiled(wide), model(wide))
    (reason,) = compiled.forward.fallbacks
    assert reason.endswith(" has shape (1, 3, 128, 320), expected 1x3x(32..160)x(32..160)")


def one_level() -> FasterRCNN:
    """One level, few layers: quick to capture with sizes that vary."""
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 7, 4, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()
    )
    backbone.out_channels = 8  # type: ignore[assignment]  # as torchvision asks for it
    model = FasterRCNN(
        backbone,
        num_classes=5,
        min_size=96,
        max_size=160,
        rpn_anchor_generator=AnchorGenerator(((16, 32),), ((1.0,),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=20,
        box_detections_per_img=10,
    ).eval()
    calibrate(model, (images(1),))
    return model


def test_images_of_any_size_run_in_the_same_engines() -> None:
    model, (picture,) = one_level(), images(1)
    sides = {i: Dim.DYNAMIC(min=32, max=512) for i in (1, 2)}
    compiled = fxtrt.compile(model, ([picture],), engine="reference", dynamic_shapes=([sides],))
    for size in ((128, 150), (200, 120), (333, 444), (90, 91), (400, 100)):
        image = torch.nn.functional.interpolate(picture[None], size)[0]
        differences = compare(compiled([image]), model([image]))
        assert all(difference.agrees for difference in differences), differences
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
    assert fxtrt.report(compiled).flops_share == 1.0


@pytest.mark.parametrize("make", RCNNS)
@pytest.mark.parametrize(("kind", "precision"), [(MaskRCNN, "fp16"), (FasterRCNN, "bf16")])
def test_engines_of_another_precision(kind: Any, precision: Any, make: Make) -> None:
    model, inputs = make(kind), images(1)
    compiled = fxtrt.compile(model, (inputs,), engine="reference", precision=precision)
    (found,), (expected,) = compiled(inputs), model(inputs)
    assert fxtrt.report(compiled).flops_share == 1.0
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
    best, wanted = found["boxes"][0], expected["boxes"]
    assert (best - wanted).abs().amax(1).min() < 5, "the best is among eager's, to a few pixels"
