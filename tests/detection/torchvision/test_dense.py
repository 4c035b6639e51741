"""The equivalents of one-stage detectors give what torchvision's functions and torch give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("torchvision", reason="torchvision is not installed")

from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.ssd import SSD

from fxtrt.detection.norms import NORMS
from fxtrt.detection.ops.best_above import best_above
from fxtrt.detection.ops.best_of_each_class import best_of_each_class
from fxtrt.detection.torchvision import dense as torchvision_dense

FAKE = ("test_schema", "test_faketensor")
SPECIAL = ["", "ties", "not finite", "nothing"]
SHAPES = [(40, 60), (64, 48)]


def logits_of(*shape: int, special: str) -> Tensor:
    logits = torch.randn(shape)
    if special == "not finite":
        logits.view(-1)[::7] = torch.nan
    return (logits * 2).round() / 2 if special == "ties" else logits


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("count", [0, 5, 200])
def test_the_best_above_a_threshold_are_those_of_a_sort(
    count: int, stable: bool, special: str
) -> None:
    torch.manual_seed(0)
    scores, most = logits_of(count, special=special), 20
    threshold = 100.0 if special == "nothing" else 0.0
    kept = scores[scores > threshold]
    number = min(most, len(kept))
    expected = kept.sort(descending=True)[0][:number] if stable else kept.topk(number)[0]
    actual, index = best_above(scores, threshold, most, stable)
    assert torch.equal(actual, expected)
    assert torch.equal(scores[index], expected)
    assert len(index.unique()) == number
    torch.library.opcheck(best_above, (scores, threshold, most, stable), test_utils=FAKE)
    several = scores[:, None].repeat(1, 4)
    torch.library.opcheck(best_of_each_class, (several, threshold, most), test_utils=FAKE)


def detector_of(special: str, coder: Any) -> SimpleNamespace:
    return SimpleNamespace(
        score_thresh=2.0 if special == "nothing" else 0.4,
        topk_candidates=20,
        nms_thresh=0.5,
        detections_per_img=15,
        box_coder=coder,
    )


def anchors_of(count: int) -> Tensor:
    corners = torch.rand(count, 2) * 40
    return torch.cat([corners, corners + 5 + torch.rand(count, 2) * 20], 1)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("kind", [RetinaNet, FCOS, SSD])
def test_detections_equal_torchvisions(kind: Any, special: str) -> None:
    torch.manual_seed(0)
    linear = kind is FCOS
    coder = BoxLinearCoder() if linear else BoxCoder((1.0, 1.0, 1.0, 1.0))
    detector, counts, images = detector_of(special, coder), (60, 8), len(SHAPES)
    outputs: dict[str, Any] = {
        "cls_logits": [logits_of(images, count, 3, special=special) * 2 for count in counts],
        "bbox_regression": [torch.rand(images, count, 4) * 0.3 for count in counts],
    }
    anchors: Any = [[anchors_of(count) for count in counts] for _ in SHAPES]
    if linear:
        outputs["bbox_ctrness"] = [torch.randn(images, count, 1) for count in counts]
    if kind is SSD:
        outputs = {name: torch.cat(levels, 1) for name, levels in outputs.items()}
        anchors = [torch.cat(levels) for levels in anchors]
    expected = kind.postprocess_detections(detector, outputs, anchors, SHAPES)
    equivalent = getattr(torchvision_dense, f"detections_of_{kind.__name__.lower()}")
    actual = equivalent(detector, outputs, anchors, SHAPES)
    for a, e in zip(actual, expected, strict=True):
        assert (len(e["boxes"]) > 0) == (special != "nothing")
        assert a.keys() == e.keys()
        assert all(torch.equal(a[name], e[name]) for name in e)


@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm_of_an_unknown_number_of_regions(affine: bool) -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3, affine=affine).eval()
    norm.running_mean, norm.running_var = torch.rand(3), torch.rand(3) + 0.5
    equivalent = NORMS["torch.nn.functional.batch_norm"]

    class Filtered(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kept = x[x[:, 0, 0, 0] > 0]
            return equivalent(  # type: ignore[no-any-return]  # untyped
                kept, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )

    x = torch.randn(6, 3, 4, 4)
    with torch.no_grad():
        program = torch.export.export(Filtered(), (x,), strict=False).module()
        for other in (x, -x.abs()):
            kept = other[other[:, 0, 0, 0] > 0]
            assert torch.equal(
                program(other),
                F.batch_norm(
                    kept, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
                ),
            )
