"""The kernels that read and write regions give what the operators' CPU implementations give."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("torchvision", reason="torchvision is not installed")
pytest.importorskip("triton", reason="Triton is not installed")

import region_kernels
from torch import Tensor

from fxtrt.detection.ops.keypoints_of_heatmaps import keypoints_of_heatmaps
from fxtrt.detection.ops.multilevel_roi_align import multilevel_roi_align
from fxtrt.detection.ops.paste_masks import paste_masks
from fxtrt.detection.ops.paste_masks_in_image import paste_masks_in_image


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str | None]:
    """Run all checks in Triton's interpreter, and return the traceback of each or None."""
    variables = {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    lines = subprocess.check_output(
        [sys.executable, "-W", "ignore", region_kernels.__file__],
        text=True,
        env=os.environ | variables,
    )
    return dict(map(json.loads, lines.splitlines()))


@pytest.mark.parametrize("name", region_kernels.CHECKS)
def test_in_the_interpreter(name: str, interpreted: dict[str, str | None]) -> None:
    assert interpreted[name] is None, interpreted[name]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("name", region_kernels.CHECKS)
def test_on_the_gpu(name: str) -> None:
    region_kernels.CHECKS[name]("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_a_cuda_graph_of_the_operators_follows_its_inputs() -> None:
    """Nothing is decided on the host while it is recorded: other boxes give their results."""
    features = [torch.rand(1, 8, 20 >> i, 26 >> i, device="cuda") for i in range(3)]
    boxes = torch.rand(1, 5, 4, device="cuda") * 20
    counts = torch.tensor([5], dtype=torch.int32, device="cuda")
    maps = torch.rand(5, 2, 6, 6, device="cuda")

    def operators() -> tuple[Tensor, ...]:
        scales, rule = [0.5, 0.25, 0.125], (0, True, 28, 2, "detectron2")
        return (
            multilevel_roi_align(features, boxes, counts, scales, [3, 3], *rule),
            paste_masks(maps[:, 0], boxes[0], 40, 52, 0.5),
            paste_masks_in_image(maps[:, :1], boxes[0], (40, 52), 1),
            keypoints_of_heatmaps(maps, boxes[0]),
        )

    operators()  # Triton compiles at the first call, which may not be recorded.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = operators()
    boxes.copy_(torch.tensor([3.0, 4, 30, 20]))
    counts.fill_(3)
    graph.replay()
    assert all(map(torch.equal, recorded, operators()))
    assert not recorded[0][3:].any()
