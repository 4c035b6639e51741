"""Comparing outputs: what counts as the same, and how detections are paired."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxtrt.numerics.compare import (
    Difference,
    compare,
    table,
)


def detections(count: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "boxes": torch.rand(count, 4, generator=generator) * 500,
        "labels": torch.arange(count),
        "scores": torch.linspace(0.9, 0.5, count),
    }


def by_output(differences: tuple[Difference, ...]) -> dict[str, Difference]:
    return {difference.output: difference for difference in differences}


def test_equal_outputs_agree() -> None:
    found = compare([detections()], [detections()])
    assert [d.output for d in found] == ["boxes", "labels", "scores"]
    assert all(d.agrees and d.largest == 0 and d.count == "4 of 4" for d in found)


def test_detections_in_another_order_agree() -> None:
    order = torch.tensor([2, 0, 3, 1])
    shuffled = {key: value[order] for key, value in detections().items()}
    assert all(d.agrees and d.largest == 0 for d in compare([shuffled], [detections()]))


@pytest.mark.parametrize(
    ("key", "change"), [("boxes", 2e-3), ("scores", 2e-4), ("labels", 1), ("boxes", torch.nan)]
)
def test_a_changed_detection_disagrees(key: str, change: float) -> None:
    changed = detections()
    changed[key][1] += change
    found = by_output(compare([changed], [detections()]))
    assert [name for name, d in found.items() if not d.agrees] == [key]


def test_a_change_within_the_tolerance_agrees() -> None:
    changed = detections()
    changed["boxes"] += 5e-4
    changed["scores"] += 5e-5
    assert all(d.agrees for d in compare([changed], [detections()]))


@pytest.mark.parametrize(("count", "text"), [(3, "3 of 4"), (5, "4 of 4, 1 more"), (0, "0 of 4")])
def test_another_number_of_detections_disagrees(count: int, text: str) -> None:
    found = compare([detections(count)], [detections(4)])
    assert not any(d.agrees for d in found)
    assert {d.count for d in found} == {text}


def test_any_other_output_is_measured_by_its_magnitude() -> None:
    expected = torch.tensor([0.0, 1000.0])
    (close,) = compare(expected + 0.09, expected)
    (far,) = compare(expected + 0.11, expected)
    assert close.agrees
    assert not far.agrees


@pytest.mark.parametrize(
    "other",
    [torch.zeros(3), torch.zeros(2, dtype=torch.float64), torch.tensor([0.0, torch.nan])],
    ids=["shape", "dtype", "nan"],
)
def test_what_cannot_be_compared_disagrees(other: torch.Tensor) -> None:
    (found,) = compare(other, torch.zeros(2))
    assert found.largest == torch.inf
    assert not found.agrees


def test_equal_nan_and_infinity_agree() -> None:
    value = torch.tensor([torch.nan, torch.inf, -torch.inf])
    (found,) = compare(value, value.clone())
    assert found.largest == 0


def test_an_infinity_tolerates_nothing() -> None:
    (found,) = compare(torch.tensor([1.0, 2.0]), torch.tensor([torch.inf, 2.0]))
    assert found.tolerance == pytest.approx(2e-4)
    assert not found.agrees


def test_missing_outputs_are_an_error() -> None:
    with pytest.raises(ValueError, match="the outputs are"):
        compare({"out": torch.zeros(1)}, {"out": torch.zeros(1), "aux": torch.zeros(1)})
    with pytest.raises(ValueError, match="there are 1 outputs, expected 2"):
        compare([torch.zeros(1)], [torch.zeros(1), torch.zeros(1)])


def test_the_table_says_no() -> None:
    text = table(compare(torch.ones(2), torch.zeros(2)))
    assert "1.00e+00" in text
    assert "NO" in text


class Boxes:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Instances:
    """Shaped like Detectron2's."""

    def __init__(self, boxes: torch.Tensor, scores: torch.Tensor) -> None:
        labels = torch.arange(len(scores))
        self.fields = {"pred_boxes": Boxes(boxes), "scores": scores, "pred_classes": labels}

    def get_fields(self) -> dict[str, Any]:
        return self.fields


def test_instances_are_detections_with_their_tolerances() -> None:
    boxes, scores = torch.tensor([[0.0, 0.0, 5.0, 5.0], [9.0, 9.0, 99.0, 99.0]]), torch.rand(2)
    one, other = Instances(boxes, scores), Instances(boxes + 2e-3, scores)
    differences = compare([{"instances": other}], [{"instances": one}])
    assert [d.output for d in differences] == [
        "instances.boxes",
        "instances.scores",
        "instances.labels",
    ]
    assert [d.agrees for d in differences] == [False, True, True]


def test_values_that_are_no_tensors_are_the_same_or_not() -> None:
    segments = [{"id": 1, "isthing": True}]
    assert all(d.agrees for d in compare({"found": segments}, {"found": segments}))
    (one, other) = compare({"found": [{"id": 2, "isthing": True}]}, {"found": segments})
    assert (one.agrees, other.agrees) == (False, True)
