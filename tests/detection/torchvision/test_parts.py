"""Every convertible part of torchvision's detectors, and a whole detector, equal eager."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch.export import Dim

pytest.importorskip("torchvision", reason="torchvision is not installed")

import fxtrt
from fxtrt.capture.example_run import record_calls
from fxtrt.diagnostics.example_models import calibrate, load_photograph
from fxtrt.graph.specs import Call
from fxtrt.numerics.compare import compare

PARTS = {
    "fasterrcnn_resnet50_fpn": (
        "backbone",
        "rpn.head",
        "roi_heads.box_head",
        "roi_heads.box_predictor",
    ),
    "maskrcnn_resnet50_fpn": ("roi_heads.mask_head", "roi_heads.mask_predictor"),
    "keypointrcnn_resnet50_fpn": ("roi_heads.keypoint_head", "roi_heads.keypoint_predictor"),
    "retinanet_resnet50_fpn": ("backbone", "head"),
}
NAMED = [(model, path) for model, paths in PARTS.items() for path in paths]


@cache
def detector(name: str) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Call]]:
    """A calibrated detector for small pictures, its inputs, and how its parts were called."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    small = {"min_size": 256, "max_size": 320}
    if "rcnn" in name:
        small |= {"rpn_post_nms_top_n_test": 200, "box_detections_per_img": 20}
    model = get_model(name, weights=None, weights_backbone=None, **small).eval()
    inputs = ([load_photograph()],)
    calibrate(model, inputs)
    calls, _ = record_calls(model, Call(inputs, {}))
    return model, inputs, calls


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    torch._dynamo.reset()
    with torch.no_grad():
        yield


def tensors(value: Any) -> list[torch.Tensor]:
    return list(torch.utils._pytree.tree_leaves(value))


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_part_equals_eager(name: str, path: str) -> None:
    model, _, calls = detector(name)
    part, call = model.get_submodule(path), calls[path]
    compiled = fxtrt.compile(part, tuple(call.args), engine="reference", min_cluster_size=1)
    coverage = fxtrt.report(compiled)
    assert coverage.flops_share == 1.0
    assert len(coverage.clusters) == 1
    for actual, expected in zip(
        tensors(compiled(*call.args)), tensors(part(*call.args)), strict=True
    ):
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize(("name", "path"), NAMED)
@pytest.mark.parametrize("precision", ["model", "fp16"])
def test_a_plan_builds(name: str, path: str, precision: Any) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if torch.cuda.is_available():
        pytest.skip("TensorRT-RTX would build for this GPU, which it may not support")
    model, _, calls = detector(name)
    compiled = fxtrt.compile(
        model.get_submodule(path),
        tuple(calls[path].args),
        engine="tensorrt_rtx",
        precision=precision,
        compute_capabilities=("sm80", "sm89", "sm120"),
        min_cluster_size=1,
        on_build_failure="raise",
        cache_dir=None,
    )
    (row,) = fxtrt.report(compiled).clusters
    assert row.build is not None
    assert row.build.plan_bytes


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
def test_a_backbone_with_dynamic_batch_height_and_width(name: str) -> None:
    backbone = detector(name)[0].get_submodule("backbone")
    batch, height, width = (Dim(n, min=1, max=8) for n in ("batch", "height", "width"))
    shapes = {0: batch, 2: 32 * height, 3: 32 * width}
    example = torch.rand(2, 3, 160, 192)
    compiled = fxtrt.compile(backbone, (example,), engine="reference", dynamic_shapes=(shapes,))
    assert fxtrt.report(compiled).flops_share == 1.0
    for shape in ((2, 3, 160, 192), (1, 3, 224, 256), (3, 3, 160, 256)):
        x = torch.rand(shape)
        expected = backbone(x)
        for level, actual in compiled(x).items():
            limit = 1e-4 * expected[level].abs().max()
            assert (actual - expected[level]).abs().max() <= limit
    assert compiled.forward.fallbacks == {}  # type: ignore[attr-defined]  # a GuardedForward


@pytest.mark.parametrize("way", ["torch.compile", "fxtrt.compile"])
def test_detections_equal_eager(way: str) -> None:
    model, inputs, _ = detector("fasterrcnn_resnet50_fpn")
    compiled: Any
    if way == "torch.compile":
        compiled = torch.compile(model, backend="fxtrt", options={"engine": "reference"})
    else:
        compiled = fxtrt.compile(model, inputs, engine="reference")
    differences = compare(compiled(*inputs), model(*inputs))
    assert all(difference.agrees for difference in differences), differences
    assert fxtrt.report(compiled).flops_share > 0.9
