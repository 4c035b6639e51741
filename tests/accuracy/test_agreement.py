"""Agreement is the share of detections, masks or classes that two models have in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from answers import detections
from detectron2_package import require_detectron2

from fxtrt.accuracy import agreement
from fxtrt.errors import AccuracyError

BOXES = [[x, 0.0, x + 50.0, 50.0] for x in (0.0, 100.0, 200.0, 300.0)]


def answer(count: int = 4, **fields: Any) -> dict[str, Any]:
    """The first detections of four."""
    scores = [0.9, 0.8, 0.7, 0.6][:count]
    return {**detections(BOXES[:count], [1, 2, 1, 2][:count], scores), **fields}


def changed(field: str, row: int, value: Any) -> dict[str, Any]:
    """The four detections, one of them with another value."""
    one = answer()
    one[field] = one[field].clone()
    one[field][row] = torch.tensor(value)
    return one


def test_an_answer_agrees_with_itself_in_any_order() -> None:
    turned = {name: value.flip(0) for name, value in answer().items()}
    assert agreement([answer(), turned], [answer(), answer()]) == 1.0


@pytest.mark.parametrize(
    ("field", "value", "share"),
    [
        ("labels", 7, 0.75),
        ("scores", 0.81, 1.0),
        ("scores", 0.79, 0.75),
        ("scores", float("nan"), 0.75),
        ("boxes", [0.0, 0.0, 50.0, 26.0], 1.0),
        ("boxes", [0.0, 0.0, 50.0, 24.0], 0.75),
        ("boxes", [float("nan")] * 4, 0.75),
    ],
)
def test_one_of_four_differs(field: str, value: Any, share: float) -> None:
    assert agreement([changed(field, 0, value)], [answer()]) == share


def test_detections_are_counted_over_all_images_and_in_both_directions() -> None:
    assert agreement([answer(), answer(2)], [answer(), answer()]) == 0.75
    assert agreement([answer(), answer()], [answer(), answer(2)]) == 0.75
    assert agreement([answer(0)], [answer()]) == 0.0


def test_low_scores_are_not_looked_for_but_are_partners() -> None:
    low = answer(2, scores=torch.tensor([0.9, 0.29]))
    assert agreement([low], [answer(1)]) == 1.0
    assert agreement([low], [answer(2, scores=torch.tensor([0.9, 0.31]))]) == 1.0


def test_a_detection_is_the_partner_of_one_only() -> None:
    twice = detections([BOXES[0], BOXES[0]], [1, 1], [0.9, 0.85])
    assert agreement([detections([BOXES[0]], [1], [0.9])], [twice]) == 0.5
    assert agreement([twice], [twice]) == 1.0


def test_equal_boxes_are_matched_by_their_scores() -> None:
    one = detections([BOXES[0]] * 2, [1, 1], [0.9, 0.82])
    other = detections([BOXES[0]] * 2, [1, 1], [0.81, 0.9])
    assert agreement([one], [other]) == 1.0


def masks(rows: int) -> torch.Tensor:
    """Probabilities of one mask of eight rows of pixels, some of them inside."""
    values = torch.full((1, 1, 8, 4), 0.2)
    values[:, :, :rows] = 0.8
    return values


def test_masks_count_where_both_have_some() -> None:
    def with_masks(rows: int) -> dict[str, Any]:
        return answer(1, masks=masks(rows))

    assert agreement([with_masks(5)], [with_masks(8)]) == 1.0
    assert agreement([with_masks(4)], [with_masks(8)]) == 0.0
    assert agreement([with_masks(0)], [with_masks(0)]) == 1.0
    assert agreement([answer(1)], [with_masks(8)]) == 1.0


def test_masks_of_different_sizes_are_an_error() -> None:
    other = answer(1, masks=torch.ones(1, 1, 4, 4))
    with pytest.raises(AccuracyError, match="have 32 and 16 pixels"):
        agreement([other], [answer(1, masks=masks(8))])
    with pytest.raises(AccuracyError, match=r"masks have the shape \(1, 1, 8, 4\).* 4 boxes"):
        agreement([answer(4, masks=masks(8))], [answer()])


@pytest.mark.detectron2
def test_detectron2_instances() -> None:
    require_detectron2()
    from detectron2.structures import Boxes, Instances

    def instances(rows: int, label: int = 1) -> Any:
        one = Instances((60, 400))
        one.pred_boxes, one.scores = Boxes(torch.tensor(BOXES[:1])), torch.tensor([0.9])
        one.pred_classes, one.pred_masks = torch.tensor([label]), masks(rows)[:, 0] > 0.5
        return one

    assert agreement([instances(5)], [{"instances": instances(8)}]) == 1.0
    assert agreement([{"instances": instances(4)}], [instances(8)]) == 0.0
    assert agreement([instances(8, label=2)], [instances(8)]) == 0.0


def test_a_classifier_agrees_by_its_highest_class() -> None:
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    other = logits.clone()
    other[3] = torch.tensor([0.4, 0.6])
    assert agreement([other], [logits]) == 0.75
    assert agreement(list(other), list(logits)) == 0.75
    other[0] = torch.tensor([0.1, float("nan")])
    assert agreement([other], [logits]) == 0.5


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ([answer()], [answer()] * 2, "predictions for 1 images, but expected answers for 2"),
        ([], [], "there are no images to judge by"),
        ([answer(0)], [answer(0)], "no expected detection in 1 images scores above 0.3"),
        ([answer()], [changed("scores", 1, float("nan"))], "image 0 has 1 detections with NaN"),
        ([torch.ones(3)], [torch.full((3,), float("nan"))], "image 0 has NaN"),
        ([torch.ones(2)], [torch.ones(3)], r"is \(2,\) and the expected one \(3,\)"),
        ([answer()], [torch.ones(3)], "is dict and the expected one"),
        ([torch.ones(1, 2, 3)], [torch.ones(1, 2, 3)], r"logits need one shape, \(classes,\)"),
        (["a"], ["a"], "does not know how to compare str"),
        ([answer()], [{"sem_seg": torch.ones(2)}], r"has \['sem_seg'\], expected a mapping"),
    ],
)
def test_bad_input_is_named(actual: list[Any], expected: list[Any], message: str) -> None:
    with pytest.raises(AccuracyError, match=message):
        agreement(actual, expected)
