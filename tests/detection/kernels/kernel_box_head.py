"""The kernels of a box head give what the CPU implementations of its operators give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_outputs import SPECIAL, BoxHead, box_head
from kernel_device import DEVICE
from torch import Tensor

from fxtrt.detection.kernels import box_head as kernels
from fxtrt.detection.ops import box_detections as operator
from fxtrt.detection.ops.refine_boxes import refine_boxes

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
"""numpy warns of what is not finite."""
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def detect(
    head: BoxHead, library: str, most: int = 12, candidates: int = 2048, threshold: float = 0.05
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what the kernels give, and what is expected."""
    sizes, limits = head.sizes, (list(WEIGHTS), threshold, 0.5, most, candidates, library)
    expected = operator.box_detections(
        head.logits, head.deltas, head.proposals, head.counts, sizes, *limits
    )
    probabilities = operator._probabilities(head.logits).to(DEVICE)
    deltas, proposals, counts = (x.to(DEVICE) for x in (head.deltas, head.proposals, head.counts))
    actual = kernels.box_detections(
        probabilities, deltas, proposals, counts, sizes.to(DEVICE), *limits, smallest_side=1e-2
    )
    return tuple(x.cpu() for x in actual), expected


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Compare; `exp` may differ in its last bit."""
    boxes, scores, *integers = actual
    torch.testing.assert_close(boxes, expected[0], rtol=1e-6, atol=4e-5)
    assert torch.equal(scores, expected[1])
    assert all(map(torch.equal, integers, expected[2:]))


CASES = [("detectron2", special) for special in SPECIAL]
CASES += [("torchvision", special) for special in ("", "degenerate", "not finite")]


@pytest.mark.parametrize(("library", "special"), CASES)
def test_detections(library: str, special: str) -> None:
    head = box_head(1, [7, 0, 4], 4, 4 if library == "torchvision" else 3, special)
    actual, expected = detect(head, library, threshold=0.3 if special == "nothing" else 0.05)
    assert_same(actual, expected)
    assert bool(expected[4].sum() > 4) == (special != "nothing")


def test_boxes_that_all_classes_share_and_a_cascade() -> None:
    head = box_head(2, [6, 3], 4, 1, stages=3)
    half: Any = BoxHead(
        [x.half() for x in head.logits], head.deltas.half(), head.proposals, head.counts, head.sizes
    )
    assert_same(*detect(half, "detectron2"))


def crowd(copies: int) -> BoxHead:
    """Two clusters of equal boxes; the second scores lower. One box of each is kept."""
    head = box_head(0, [2 * copies], 2, 1)
    head.deltas.zero_()
    head.proposals[0, :copies] = torch.tensor([1.0, 1, 20, 20])
    head.proposals[0, copies:] = torch.tensor([30.0, 30, 50, 50])
    head.logits[0][:, 0], head.logits[0][:, 1] = torch.arange(len(head.deltas), 0, -1) / 10, 0
    return head


@pytest.mark.parametrize(
    ("most", "candidates", "overflow"),
    [
        (2, 18, False),  # All candidates are looked at.
        (2, 10, False),  # The second cluster's best is the 10th, and no more are wanted.
        (2, 9, True),  # It is not looked at.
        (1, 9, False),  # It is not wanted.
        (3, 10, True),  # A third might follow.
        (1, 1, False),  # The best of all is kept in any case.
    ],
)
def test_overflow_is_told_where_it_could_matter(most: int, candidates: int, overflow: bool) -> None:
    actual, expected = detect(crowd(9), "detectron2", most, candidates)
    assert actual[-1].tolist() == [overflow]
    if not overflow:
        assert_same(actual[:-1], expected[:-1])


def test_any_number_of_scores_may_pass_the_threshold() -> None:
    head = box_head(4, [60], 501, 1)
    actual, expected = detect(head, "detectron2", most=20, candidates=128, threshold=0.0)
    assert_same(actual, expected)
    assert expected[4].tolist() == [20]


def test_refined_boxes() -> None:
    head = box_head(3, [40, 9], 2, 1, "not finite")
    expected = refine_boxes(head.deltas, head.proposals, head.sizes, list(WEIGHTS))
    deltas, boxes, sizes = (x.to(DEVICE) for x in (head.deltas, head.proposals, head.sizes))
    actual = kernels.refine_boxes(deltas, boxes, sizes, WEIGHTS).cpu()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=4e-5, equal_nan=True)
    assert expected.isnan().any()
    assert expected[0].isfinite().all(1).sum() > 10


def test_no_proposal_and_no_detection_wanted() -> None:
    empty = box_head(0, [0, 0], 4, 3)
    actual, _ = detect(empty, "detectron2")
    assert actual[4].tolist() == [0, 0]
    assert (actual[2] == -1).all()
    assert not actual[5].any()
    none_wanted, _ = detect(box_head(0, [2], 3, 2), "detectron2", most=0)
    assert none_wanted[4].tolist() == [0]
    assert none_wanted[5].tolist() == [False]
