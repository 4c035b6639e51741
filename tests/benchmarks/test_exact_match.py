"""Differences of two answers are ties only where two scores, or an overlap and a limit, meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from exact_match import Exactness, Rules
from exactness import calls_of, pictures

RULES = Rules(score=0.05, nms=0.5, most=4)


def answer(*rows: tuple[float, float, int]) -> dict[str, Any]:
    """Detections of 100 by 100 pixels, each from its left side, score and class."""
    lefts = torch.tensor([row[0] for row in rows])[:, None]
    zeros = torch.zeros_like(lefts)
    return {
        "boxes": torch.cat([lefts, zeros, lefts + 100, zeros + 100], 1),
        "scores": torch.tensor([row[1] for row in rows]),
        "labels": torch.tensor([row[2] for row in rows]),
    }


def compared(actual: Any, expected: Any) -> Exactness:
    found = Exactness()
    found.add([actual], [expected], RULES)
    return found


A, B, C = (0.0, 0.9, 1), (300.0, 0.8, 1), (600.0, 0.7, 2)


def test_the_same_detections_are_no_difference() -> None:
    near = answer((0.005, 0.900004, 1), B, C)
    found = compared(near, answer(A, B, C))
    assert (found.images, found.detections, found.faults, found.ties) == (1, 3, [], {})
    assert found.boxes == pytest.approx(0.005, rel=1e-3)
    assert found.scores == pytest.approx(4e-6, rel=0.1)


@pytest.mark.parametrize(
    "other", [(0.02, 0.9, 1), (0.0, 0.90002, 1), (0.0, 0.9, 2)], ids=["box", "score", "class"]
)
def test_a_detection_that_differs_is_a_fault_on_both_sides(other: Any) -> None:
    found = compared(answer(other, B, C), answer(A, B, C))
    assert len(found.faults) == 2
    assert found.faults[0].startswith("not expected: score 0.9")
    assert found.faults[1].startswith("missing: score 0.9")


def test_another_order_is_a_tie_of_equal_scores_only() -> None:
    near = (300.0, 0.899995, 1)
    found = compared(answer(near, A), answer(A, near))
    assert (found.faults, found.ties) == ([], {"order": 1})
    found = compared(answer(B, A), answer(A, B))
    assert found.faults == ["another order, though scores differ by 1.0e-01"]


def test_a_score_at_the_threshold_is_a_tie() -> None:
    assert compared(answer(A), answer(A, (300.0, 0.050005, 1))).ties == {"score threshold": 1}
    assert len(compared(answer(A), answer(A, (300.0, 0.0501, 1))).faults) == 1


def test_the_last_place_is_a_tie_of_equal_scores_only() -> None:
    full = (A, B, C)
    found = compared(answer(*full, (900.0, 0.600004, 1)), answer(*full, (1200.0, 0.6, 1)))
    assert (found.faults, found.ties) == ([], {"last place": 2})
    found = compared(answer(*full, (900.0, 0.61, 1)), answer(*full, (1200.0, 0.6, 1)))
    assert len(found.faults) == 2


# Boxes of 100 pixels overlap by a half if one is 100 / 3 to the right of the other.
THIRD = 100 / 3


def test_an_overlap_at_the_limit_is_a_tie_of_one_class_only() -> None:
    assert compared(answer(A), answer(A, (THIRD, 0.5, 1))).ties == {"suppression": 1}
    assert len(compared(answer(A), answer(A, (THIRD, 0.5, 2))).faults) == 1
    assert len(compared(answer(A), answer(A, (THIRD + 0.1, 0.5, 1))).faults) == 1


def test_what_a_tie_suppresses_or_pushes_out_is_a_tie() -> None:
    tied, behind = (THIRD, 0.8, 1), (THIRD + 20, 0.7, 1)
    found = compared(answer(A, tied), answer(A, behind))
    assert (found.faults, found.ties) == ([], {"suppression": 1, "suppressed by a tie": 1})
    far = [(1000.0 * i, 0.6 - i / 100, 2) for i in range(1, 4)]
    found = compared(answer(A, tied, *far[:2]), answer(A, *far))
    assert (found.faults, found.ties) == ([], {"suppression": 1, "pushed out by a tie": 1})


def test_empty_answers_are_compared() -> None:
    assert compared(answer(), answer()).faults == []
    assert len(compared(answer(), answer(A)).faults) == 1


def test_images_come_in_batches_of_one_to_four() -> None:
    images = list(pictures(12, 40, 50))
    assert [len(call) for call in calls_of(images)] == [1, 2, 3, 4, 1, 1]
    assert len({one["image"].shape for one in images}) == 5
    assert not torch.equal(images[0]["image"], images[5]["image"])
