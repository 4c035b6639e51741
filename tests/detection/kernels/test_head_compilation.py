"""The kernels of detectors' heads compile for a GPU, and once for maps of any size."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from head_outputs import box_head, dense_head
from kernel_compiler import compiled_kernels, variants

from fxtrt.detection.dense_rules import DenseRules
from fxtrt.detection.kernels import box_head as box_kernels
from fxtrt.detection.kernels import candidates, nms, ssd_head, topk
from fxtrt.detection.kernels import dense_head as dense_kernels

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="Triton compiles nothing while it interprets"
)
BEST = ["_count_digits"] * 4 + ["_collect", "_sort_by_counting"]
SELECTION = ["_decode_best", "_sum_up", "_compare", "_suppress", "_write"]
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


@pytest.mark.parametrize(("library", "moves"), [("detectron2", 1), ("torchvision", 81)])
def test_box_head(library: str, moves: int) -> None:
    head = box_head(0, [30, 20], 81, moves)
    with compiled_kernels() as names:
        box_kernels.box_detections(
            head.logits[0], head.deltas.half(), head.proposals, head.counts, head.sizes, WEIGHTS,
            0.05, 0.5, 100, 2048, library, smallest_side=1e-2,
        )  # fmt: skip
    assert names == ["_mask", *BEST, *SELECTION]


def test_refined_boxes() -> None:
    head = box_head(0, [30, 20], 2, 1)
    with compiled_kernels() as names:
        box_kernels.refine_boxes(head.deltas.half(), head.proposals, head.sizes, WEIGHTS)
    assert names == ["_refine"]


def rules_of(head: str, library: str) -> DenseRules:
    return DenseRules(0.0, WEIGHTS, 0.05, 0.5, 1000, 100, 2048, library, head)


def dense(kind: str, library: str, grids: list[tuple[int, int]], dtype: torch.dtype) -> list[str]:
    """Compile for maps of these sizes; return the names of the kernels."""
    anchors, channels_last = (1 if kind == "fcos" else 3), library == "torchvision"
    head = dense_head(0, grids, [anchors] * len(grids), 5, centerness=kind == "fcos")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits, deltas, centerness = (
        [x.to(dtype, memory_format=layout) for x in part]
        for part in (head.logits, head.deltas, head.centerness)
    )
    cells = [torch.zeros(anchors, 4)] * len(grids)
    strides = [s for i in range(len(grids)) for s in (8 << i, 8 << i)]
    with compiled_kernels() as names:
        dense_kernels.dense_detections(
            logits, deltas, centerness, cells, head.sizes, strides, rules_of(kind, library)
        )
    return names


@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_dense_head(kind: str, library: str) -> None:
    dtype = torch.float16 if kind == "fcos" else torch.float32
    names = dense(kind, library, [(9, 14), (5, 7)], dtype)
    assert names == ["_best_of_groups", *BEST, "_scores_of_groups", *BEST, "_merge", *SELECTION]


def test_ssd() -> None:
    tables = (torch.zeros(2, 50, 21), torch.zeros(2, 50, 4), torch.zeros(50, 4), torch.zeros(2, 2))
    with compiled_kernels() as names:
        ssd_head.ssd_detections(*tables, rules_of("ssd", "torchvision"))
    assert names == [*BEST, *SELECTION]


def test_maps_of_other_sizes_need_no_other_kernels() -> None:
    """Triton compiles anew for sizes that are 1 or multiples of 16, which must not reach it."""
    compiled = []
    for grids in ([(9, 14), (5, 7)], [(16, 32), (1, 1)], [(48, 17), (16, 1)]):
        dense("retinanet", "torchvision", grids, torch.float16)
        compiled.append(sum(map(variants, (candidates, dense_kernels, nms, topk))))
    assert compiled[0] > 0
    assert len(set(compiled)) == 1
