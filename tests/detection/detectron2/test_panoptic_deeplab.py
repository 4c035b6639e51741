"""Panoptic-DeepLab is captured whole, equal to the bit; its networks run in one engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2_instances import assert_same as assert_same_instances
from panoptic_deeplab import small_panoptic_deeplab
from small_detectron2 import picture
from torch import nn

import fxtrt
from fxtrt.capture.export import capture_module
from fxtrt.detection import with_equivalents

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.slow,
    pytest.mark.usefixtures("no_grad"),
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]

NO_CENTERS = ("MODEL.PANOPTIC_DEEPLAB.CENTER_THRESHOLD", 1e6)
NO_INSTANCES = ("MODEL.PANOPTIC_DEEPLAB.PREDICT_INSTANCES", False)


def pictures(height: int = 128, width: int = 144) -> list[dict[str, Any]]:
    """Two, of different sizes."""
    whole = picture(height, width)
    part = whole[:, : height - 32, : width - 16]
    return [
        {"image": whole, "height": height + 24, "width": width + 22},
        {"image": part, "height": height, "width": width},
    ]


def mirrored(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one | {"image": one["image"].flip(2)} for one in images]


def assert_same(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The project's dicts are equal, to the bit."""
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        assert torch.equal(one["sem_seg"], other["sem_seg"])
        assert torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
        assert one["panoptic_seg"][1] is other["panoptic_seg"][1] is None
        if "instances" in other:
            assert_same_instances(one["instances"], other["instances"])


def assert_close(actual: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Logits but for rounding; of the pixels, those at a threshold may differ."""
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        torch.testing.assert_close(one["sem_seg"], other["sem_seg"], atol=1e-3, rtol=1e-4)
        differing = one["panoptic_seg"][0] != other["panoptic_seg"][0]
        assert differing.float().mean() < 1e-3


def captured(model: nn.Module, example: list[dict[str, Any]]) -> Any:
    with with_equivalents(model):
        graph = capture_module(model, (example,))
    graph.validate_inputs = False  # type: ignore[assignment]  # torch.export's switch
    return graph


@pytest.mark.parametrize(
    ("options", "has_instances"), [((), True), (NO_CENTERS, False), (NO_INSTANCES, False)]
)
def test_the_graph_is_the_model(options: tuple[Any, ...], has_instances: bool) -> None:
    model, example = small_panoptic_deeplab(*options), pictures()
    graph = captured(model, example)
    for call in (example, mirrored(example)):
        expected = model(call)
        assert [("instances" in one) for one in expected] == [has_instances] * 2
        assert_same(graph(call), expected)


def test_engines_serve_every_size() -> None:
    model, example = small_panoptic_deeplab(), pictures()
    compiled = fxtrt.compile(model, (example,), engine="reference")
    coverage = fxtrt.report(compiled)
    assert len([row for row in coverage.clusters if row.flops]) == 1
    assert coverage.flops_share == 1.0
    for call in (example, mirrored(example), pictures(160, 128)):
        assert_close(compiled(call), model(call))
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward
