"""Two answers of a detector agree as far as their detections are pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detection_match import agreement


def answer(count: int = 20, shift: float = 0.0) -> dict[str, Any]:
    corners = torch.arange(count, dtype=torch.float32)[:, None] * 40 + shift
    boxes = torch.cat([corners, corners, corners + 30, corners + 30], 1)
    scores = torch.linspace(0.9, 0.5, count)
    return {"boxes": boxes, "scores": scores, "labels": torch.arange(count) % 3}


def test_the_same_answer_agrees() -> None:
    found = agreement([answer(), answer()], [answer(), answer()])
    assert (found.share, found.compared, found.boxes, found.scores) == (1.0, 80, 0.0, 0.0)


def test_the_order_does_not_matter() -> None:
    turned = {name: value.flip(0) for name, value in answer().items()}
    assert agreement([turned], [answer()]).share == 1.0


def test_another_class_and_another_place_do_not_agree() -> None:
    other = answer()
    other["labels"][0] = 7
    other["boxes"][1] += 3.0
    assert agreement([other], [answer()]).share == pytest.approx(0.9)


@pytest.mark.parametrize("more", ["actual", "expected"])
def test_a_detection_of_only_one_side_counts(more: str) -> None:
    sides = ([answer(20)], [answer(16)]) if more == "actual" else ([answer(16)], [answer(20)])
    assert agreement(*sides).share == pytest.approx(0.8)


def test_a_small_shift_is_measured() -> None:
    found = agreement([answer(shift=0.25)], [answer()])
    assert (found.share, found.boxes) == (1.0, 0.25)


def test_empty_boxes_agree_with_themselves() -> None:
    flat = answer()
    flat["boxes"][:, 2] = flat["boxes"][:, 0]
    assert agreement([flat], [flat]).share == 1.0


def test_low_scores_are_looked_for_where_there_are_no_others() -> None:
    dim, other = answer(), answer()
    dim["scores"], other["scores"] = dim["scores"] * 0.1, other["scores"] * 0.1
    other["labels"] += 1
    found = agreement([other], [dim])
    assert (found.share, found.compared) == (0.0, 20)


def test_an_image_without_detections() -> None:
    nothing = {name: value[:0] for name, value in answer().items()}
    assert agreement([nothing], [nothing]).share == 1.0
    assert agreement([nothing], [answer()]).share == 0.0
    assert agreement([answer()], [nothing]).share == 0.0


def test_semantic_pixels_are_counted() -> None:
    one, other = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    one[1, 0] = 1.0
    found = agreement([{"sem_seg": one}], [{"sem_seg": other}])
    assert found.pixels == pytest.approx(0.75)


def test_numbers_of_images_must_be_equal() -> None:
    with pytest.raises(ValueError, match="there are 1 answers, expected 2"):
        agreement([answer()], [answer(), answer()])
