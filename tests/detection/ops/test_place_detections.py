"""`fxtrt::place_detections` scales, clips and judges boxes as `detector_postprocess` does."""

from __future__ import annotations

import pytest
import torch
from detectron2_package import require_detectron2
from hypothesis import given, settings
from hypothesis import strategies as st

from fxtrt.detection.ops.place_detections import place_detections

pytestmark = [
    pytest.mark.detectron2,
    pytest.mark.filterwarnings("ignore"),  # Detectron2 and what it imports warn about themselves.
]
COORDINATES = st.floats(-20, 120, width=32)
SIDES = st.integers(1, 200)


@settings(deadline=None)  # The first example imports Detectron2.
@given(
    st.lists(st.lists(COORDINATES, min_size=4, max_size=4), min_size=1, max_size=6),
    st.tuples(SIDES, SIDES),
    st.tuples(SIDES, SIDES),
)
def test_equals_detectron2(
    rows: list[list[float]], size: tuple[int, int], picture: tuple[int, int]
) -> None:
    require_detectron2()
    from detectron2.modeling.postprocessing import detector_postprocess
    from detectron2.structures import Boxes, Instances

    boxes = torch.tensor(rows)
    instances = Instances(size, pred_boxes=Boxes(boxes.clone()), row=torch.arange(len(boxes)))
    expected = detector_postprocess(instances, *picture)
    scale = (picture[1] / size[1], picture[0] / size[0])
    placed, summary = place_detections(
        boxes[None],
        torch.tensor([len(boxes)], dtype=torch.int32),
        torch.tensor([False]),
        torch.tensor([scale * 2]),
        torch.tensor([[*picture[::-1]] * 2], dtype=torch.float32).view(1, 4),
    )
    (count, overflow, *flags) = summary[0].tolist()
    assert (count, overflow) == (len(boxes), 0)
    kept = [row for row, flag in enumerate(flags) if flag]
    assert kept == expected.row.tolist()
    assert torch.equal(placed[0, kept], expected.pred_boxes.tensor)


def test_the_fake_agrees() -> None:
    given = (
        torch.rand(2, 3, 4),
        torch.tensor([3, 0], dtype=torch.int32),
        torch.tensor([False, True]),
        torch.rand(2, 4),
        torch.rand(2, 4),
    )
    torch.library.opcheck(place_detections, given, test_utils=("test_schema", "test_faketensor"))
