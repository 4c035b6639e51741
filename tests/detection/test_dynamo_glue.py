"""A prepared detector is a few large graphs under torch.compile, and says the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

import fxtrt
from fxtrt.detection import (
    Recipe,
    prepare,
    register,
)
from fxtrt.detection.recipes import _RECIPES
from fxtrt.diagnostics.example_models import calibrate, load_photograph
from fxtrt.errors import CaptureError
from fxtrt.numerics.compare import compare


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


class OwnHeads(RoIHeads):  # type: ignore[misc]  # untyped
    """RoI heads that no core can go round, because they have a `forward` of their own."""

    def forward(self, *args: Any) -> Any:
        return super().forward(*args)


def without_core(model: FasterRCNN) -> FasterRCNN:
    model.roi_heads.__class__ = OwnHeads
    return model


@pytest.mark.slow
def test_a_prepared_detector_is_few_graphs() -> None:
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    size = {"min_size": 128, "max_size": 160, "box_detections_per_img": 10}
    model = FasterRCNN(backbone, num_classes=5, rpn_post_nms_top_n_test=60, **size).eval()
    without_core(model)
    inputs = ([torch.nn.functional.avg_pool2d(load_photograph(), 4)],)
    calibrate(model, inputs)
    expected = model(*inputs)
    assert len(expected[0]["boxes"]) == 10
    undo = prepare(model)
    try:
        compiled: Any = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
        assert all(difference.agrees for difference in compare(compiled(*inputs), expected))
    finally:
        undo()
    coverage = fxtrt.report(compiled)
    assert coverage.flops_share == 1.0
    # Backbone, RPN head with the decoding of its boxes, box head; an unprepared model has dozens.
    assert len(coverage.pictures) == 3
    assert len(coverage.clusters) <= 4
    assert "fxtrt.compile(model, inputs) would make it one graph" in coverage.capture[-1]


def test_the_originals_come_back() -> None:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    model = without_core(FasterRCNN(backbone, 5))
    original = MultiScaleRoIAlign.forward
    undo = prepare(model)
    assert MultiScaleRoIAlign.forward is not original
    undo()
    assert MultiScaleRoIAlign.forward is original


class Unknown(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_an_architecture_without_a_recipe_says_what_to_do() -> None:
    with pytest.raises(CaptureError, match="Unknown has no recipe that names its glue: register"):
        prepare(Unknown())


def test_a_name_that_does_not_exist_is_named() -> None:
    name = f"{Unknown.__module__}.{Unknown.__qualname__}"
    register(Recipe(name, {}, glue=("torchvision.ops.poolers.no_such_function",)))
    try:
        with pytest.raises(CaptureError, match=r"there is no torchvision\.ops\.poolers\.no_such"):
            prepare(Unknown())
    finally:
        del _RECIPES[name]
