"""On a GPU the operators hand their arguments on to the kernels in the right order."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from head_outputs import box_head, dense_head
from kernel_device import DEVICE
from rpn_maps import Limits, maps_of
from torch import Tensor

from fxtrt.detection.ops import (
    box_detections,
    dense_detections,
    keypoints_of_heatmaps,
    multilevel_roi_align,
    paste_masks,
    paste_masks_in_image,
    rpn_proposals,
)

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
"""numpy warns of what is not finite."""
WEIGHTS = [1.0, 1.0, 2.0, 2.0]
CELLS = [torch.tensor([[-9.0, -6, 9, 6], [-7, -12, 7, 12], [-4, -4, 4, 4]]) for _ in range(2)]
BOXES = torch.tensor([[3.25, 2.5, 20.75, 17.0], [-9.5, -7, 61, 48.5]])
WITHOUT_KERNELS = ("_composed", "_paste_whole")


def box_arguments() -> tuple[Any, ...]:
    head = box_head(1, [7, 0, 4], 4, 3)
    regions = (head.logits, head.deltas, head.proposals, head.counts, head.sizes)
    return (*regions, WEIGHTS, 0.05, 0.5, 12, 2048, "detectron2")


def dense_arguments() -> tuple[Any, ...]:
    head = dense_head(1, [(4, 6), (3, 2)], [3, 3], 3)
    maps = (head.logits, head.deltas, head.centerness, CELLS, head.sizes)
    limits = (0.3, 0.5, 12, 10, 2048)
    return (*maps, [8, 9, 16, 17], 0.5, WEIGHTS, *limits, "torchvision", "retinanet")


def rpn_arguments() -> tuple[Any, ...]:
    maps = maps_of(1, "plain", grids=((8, 10), (4, 5)))
    limits = Limits(pre_nms_topk=24, post_nms_topk=40, min_size=1e-3, score_thresh=0.2)
    return (*maps.arguments(CELLS, 0.5), *limits.arguments(), "torchvision")


def random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def pooling_arguments() -> tuple[Any, ...]:
    levels = [random(1, 3, 20, 26), random(1, 3, 10, 13)]
    counts = torch.tensor([2], dtype=torch.int32)
    return (levels, BOXES[None], counts, [0.5, 0.25], [3, 3], 2, True, 224, 4, "detectron2")


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


CASES = [
    (box_detections, box_arguments()),
    (dense_detections, dense_arguments()),
    (rpn_proposals, rpn_arguments()),
    (multilevel_roi_align, pooling_arguments()),
    (paste_masks, (random(2, 7, 7), BOXES, 40, 52, 0.5)),
    (paste_masks_in_image, (random(2, 1, 7, 7), BOXES, [40, 52])),
    (keypoints_of_heatmaps, (random(2, 3, 7, 7), BOXES)),
]


@pytest.mark.parametrize(("module", "arguments"), CASES, ids=[_name(module) for module, _ in CASES])
def test_the_kernels_run(
    module: ModuleType, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = getattr(module, _name(module))
    expected = operator(*arguments)
    for name in WITHOUT_KERNELS:
        monkeypatch.setattr(module, name, None, raising=False)
    # On a GPU the dispatcher calls this function; in the interpreter, the test must.
    on_gpu = operator if DEVICE == "cuda" else operator._backend_fns["cuda"]
    actual = on_gpu(*map(_on_device, arguments))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4, check_device=False)
    first = expected if isinstance(expected, Tensor) else expected[0]
    assert first.count_nonzero() > 0


def _on_device(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.to(DEVICE)
    if isinstance(argument, list):
        return [_on_device(one) for one in argument]
    return argument
