"""`fxtrt::refine_boxes` gives the boxes of a Cascade R-CNN's next stage."""

from __future__ import annotations

import pytest
import torch
from detectron2_package import require_detectron2
from fuzzing import fuzz
from head_outputs import box_head
from hypothesis import strategies as st

pytest.importorskip("torchvision", reason="torchvision is not installed")

from fxtrt.detection.ops.refine_boxes import refine_boxes

WEIGHTS = (20.0, 20.0, 10.0, 10.0)


def check(seed: int, counts: list[int], special: str, half: bool) -> None:
    from detectron2.modeling.box_regression import Box2BoxTransform
    from detectron2.structures import Boxes

    head = box_head(seed, counts, 2, 1, special)
    deltas = head.deltas.half() if half else head.deltas
    actual = refine_boxes(deltas, head.proposals, head.sizes, list(WEIGHTS))
    assert actual.dtype == torch.float32
    transform = Box2BoxTransform(weights=WEIGHTS)
    rows = zip(head.live(deltas), head.live(head.proposals.flatten(0, 1)), strict=True)
    for image, (moves, boxes) in enumerate(rows):
        expected = Boxes(transform.apply_deltas(moves, boxes))
        expected.clip(head.shapes()[image])
        assert torch.equal(actual[image, : len(boxes)], expected.tensor)


@pytest.mark.detectron2
@pytest.mark.filterwarnings("ignore")  # Detectron2 and what it imports warn about themselves.
def test_it_gives_what_detectron2_gives() -> None:
    require_detectron2()
    counts = st.lists(st.integers(0, 40), min_size=1, max_size=3)
    special = st.sampled_from(["", "ties", "degenerate"])
    fuzz(check, st.integers(0, 10_000), counts, special, st.booleans(), examples=40)


def test_what_is_not_finite_spoils_its_own_row_only() -> None:
    head = box_head(0, [20, 9], 2, 1)
    plain = refine_boxes(head.deltas, head.proposals, head.sizes, list(WEIGHTS))
    deltas = head.deltas.clone()
    deltas[3, 2] = torch.nan
    spoiled = refine_boxes(deltas, head.proposals, head.sizes, list(WEIGHTS))
    assert spoiled[0, 3].isnan().any()
    spoiled[0, 3] = plain[0, 3]
    torch.testing.assert_close(spoiled, plain, atol=0, rtol=0, equal_nan=True)


def test_its_fake_tells_the_shape() -> None:
    head = box_head(0, [20, 9], 2, 1)
    torch.library.opcheck(
        refine_boxes,
        (head.deltas.half(), head.proposals, head.sizes, list(WEIGHTS)),
        test_utils=("test_schema", "test_faketensor"),
    )
