"""Detectors in int8: their predictors stay float16, and they find the same."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
import torchvision  # noqa: F401  # defines the operators that the rules name
from small_torchvision import images, small_rcnn
from torchvision.models.detection import FasterRCNN

import fxtrt
from fxtrt.detection.ops.multilevel_roi_align import multilevel_roi_align  # noqa: F401
from fxtrt.quantization.rules import FEATURES, FOREIGN

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.mark.parametrize("name", FEATURES)
def test_rules_name_arguments_that_exist(name: str) -> None:
    namespace, _, operator = name.partition("::")
    if operator.startswith("detectron2"):
        pytest.importorskip("detectron2", reason="Detectron2 is not on the path")
        importlib.import_module(f"fxtrt.detection.ops.{operator}")
    assert namespace in FOREIGN
    schema = getattr(getattr(torch.ops, namespace), operator).default._schema
    assert FEATURES[name] in [argument.name for argument in schema.arguments]


def test_detector_finds_the_same_in_int8() -> None:
    model: Any = small_rcnn(FasterRCNN)
    pictures = images(2)
    # They are of several sizes, one at a time and together.
    examples = [([pictures[0]],), ([pictures[1]],), (pictures,), ([pictures[0].flip(1)],)]
    compiled = fxtrt.compile(
        model,
        ([pictures[0]],),
        precision="int8",
        engine="reference",
        cache_dir=None,
        calibration=examples,
    )
    coverage = fxtrt.report(compiled)
    # These are the backbone's second layer, the RPN's convolution on both levels, and two of the
    # heads' linear layers.
    assert coverage.int8 == 5
    reasons = {line.partition(": ")[2] for line in coverage.kept_fp16}
    assert reasons == {
        "it is the first convolution",
        "it is among the last: its result reaches fxtrt.rpn_proposals.default",
        "it is among the last: its result reaches fxtrt.box_detections.default",
    }
    for picture in pictures:
        (expected,), (found,) = model([picture]), compiled([picture])
        near = (found["boxes"][:, None] - expected["boxes"]).abs().amax(2).min(1).values < 1.0
        assert near.float().mean() >= 0.8
        torch.testing.assert_close(found["scores"][:3], expected["scores"][:3], atol=0.05, rtol=0)
    assert fxtrt.report(compiled).guards[0].compiled == 2


def test_detector_refuses_other_examples() -> None:
    model: Any = small_rcnn(FasterRCNN)
    with pytest.raises(fxtrt.errors.SettingsError, match="example 0 of calibration is not what"):
        fxtrt.compile(
            model,
            (images(1),),
            precision="int8",
            engine="reference",
            cache_dir=None,
            calibration=[(["picture"],)],
        )
