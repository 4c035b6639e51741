"""The kernels compile for a GPU. Triton's interpreter runs much that its compiler refuses."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from kernel_compiler import compiled_kernels, variants
from rpn_maps import Limits, maps_of

from fxtrt.detection.kernels import nms, rpn, topk

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="Triton compiles nothing while it interprets"
)
CELLS = [torch.zeros(3, 4)] * 3


@pytest.mark.parametrize("library", ["detectron2", "torchvision"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_rpn_proposals(dtype: torch.dtype, library: str) -> None:
    maps = maps_of(0, dtype=dtype)
    maps = maps if library == "detectron2" else maps.channels_last()
    arguments: tuple[Any, ...] = (*maps.arguments(CELLS, 0.5), *Limits().arguments(), library)
    with compiled_kernels() as names:
        rpn.proposals(*arguments)
    passes = 2 if dtype == torch.float16 else 4
    assert names == ["_count_digits"] * passes + [
        *("_collect", "_sort_by_counting", "_decode_best", "_compare", "_suppress", "_merge")
    ]


def test_maps_of_other_sizes_need_no_other_kernels() -> None:
    """Triton compiles anew for sizes that are 1 or multiples of 16, which must not reach it."""
    library, compiled = "detectron2", []
    for grids in (
        ((9, 14), (5, 7), (3, 4)),
        ((16, 32), (8, 16), (1, 2)),
        ((48, 17), (16, 9), (1, 1)),
    ):
        maps = maps_of(0, grids=grids)
        arguments: tuple[Any, ...] = (*maps.arguments(CELLS, 0.5), *Limits().arguments(), library)
        with compiled_kernels():
            rpn.proposals(*arguments)
        compiled.append(sum(map(variants, (topk, nms, rpn))))
    assert compiled[0] > 0
    assert len(set(compiled)) == 1


def test_nms_with_all_it_takes() -> None:
    boxes, valid = torch.zeros(2, 100, 4), torch.zeros(2, 100, dtype=torch.bool)
    counts = torch.zeros(2, dtype=torch.int32)
    with compiled_kernels() as names:
        nms.nms_sorted(
            boxes, valid, 0.5, 10, groups=counts[:, None].repeat(1, 100), counts=counts,
            largest=torch.zeros(2),
        )  # fmt: skip
    assert names == ["_compare", "_suppress"]
