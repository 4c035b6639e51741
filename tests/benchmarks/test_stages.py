"""The nodes of a detector's graph become stages, and their calls lower bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detector_cases import Built
from detector_stages import measure_stages
from detector_timing import Plan
from stage_costs import BACKBONE, Cost, CostObserver, Gpu, stages_of
from torch.fx import Graph

import fxtrt
from fxtrt.detection.ops import box_detections, multilevel_roi_align, rpn_proposals
from fxtrt.lowering.outcome import outcome_of

PLAN = Plan(seconds=0.0, threads=(), warm_up=0)


def test_operators_divide_the_graph() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    names = ["backbone", "rpn_proposals", "multilevel_roi_align", "box_head", "box_detections"]
    names += ["multilevel_roi_align", "mask_head"]
    assert all((rpn_proposals, multilevel_roi_align, box_detections))  # they are registered
    nodes = []
    for name in names:
        packet = getattr(torch.ops.fxtrt, name, None) if "_head" not in name else None
        target = torch.ops.aten.relu.default if packet is None else packet.default
        if name == "backbone":
            target = torch.ops.aten.relu.default
        nodes.append(graph.call_function(target, (x,)))
    graph.output(tuple(nodes))
    assert [stages_of(graph)[node.name] for node in nodes] == [
        BACKBONE,
        "RPN selection",
        "RoIAlign",
        "box head",
        "box selection",
        "RoIAlign of masks",
        "mask and keypoint heads",
    ]


def test_an_engine_counts_by_its_flops_and_bytes(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))
    x = torch.rand(2, 3, 10, 10)
    fast = fxtrt.compile(model.eval(), (x,), engine="reference", cache_dir=tmp_path)
    outcome = outcome_of(fast)
    assert outcome is not None
    call = outcome.reported[0].call
    assert call is not None
    for half, width in ((False, 4), (True, 2)):
        observer = CostObserver(call.graph.graph, half)
        with torch.no_grad(), call.observe(observer):
            fast(x)
        cost = observer.costs[BACKBONE]
        assert cost.flops == 2 * 2 * 64 * (8 * 27 + 4 * 8)
        weights = 8 * 27 + 8 + 4 * 8 + 4
        assert cost.bytes == weights * width + 4 * (2 * 3 * 100 + 2 * 4 * 64)


def test_the_floor_is_the_larger_of_arithmetic_and_memory() -> None:
    gpu = Gpu(tflops=1000.0, gb_per_second=4000.0)
    assert gpu.floor_ms(Cost(flops=500 * 10**9, bytes=0)) == pytest.approx(0.5)
    assert gpu.floor_ms(Cost(flops=0, bytes=8 * 10**6)) == pytest.approx(0.002)
    assert gpu.floor_ms(Cost(500 * 10**9, 8 * 10**9)) == pytest.approx(2.0)


@pytest.mark.slow
@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")
def test_the_stages_of_a_detector(tmp_path: Path) -> None:
    model, inputs = _small_mask_rcnn()
    fast = fxtrt.compile(model, (inputs,), engine="reference", cache_dir=tmp_path)
    row = measure_stages(Built(model, lambda count: inputs * count), fast, 2, PLAN, half=True)
    flops = {one["stage"]: one["gflops"] for one in row["stages"]}
    assert list(flops) == [
        *("backbone and dense heads", "RPN selection", "RoIAlign", "box head", "box selection"),
        *("RoIAlign of masks", "mask and keypoint heads"),
    ]
    assert all(flops[name] > 0 for name in flops if "head" in name)
    assert not any(flops[name] for name in flops if "head" not in name)
    once = measure_stages(Built(model, lambda count: inputs), fast, 1, PLAN, half=True)
    assert row["stages"][0]["gflops"] == pytest.approx(2 * once["stages"][0]["gflops"])


def _small_mask_rcnn() -> tuple[torch.nn.Module, list[dict[str, torch.Tensor]]]:
    from small_detectron2 import picture, small_config

    cfg = small_config("Panoptic FPN")
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    from detectron2.modeling import build_model

    from fxtrt.diagnostics.example_models import calibrate

    torch.manual_seed(0)
    model = build_model(cfg).eval()
    inputs = [{"image": picture(160, 192)}]
    with torch.no_grad():
        calibrate(model, (inputs,))
    return model, inputs
