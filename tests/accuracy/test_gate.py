"""A gate is checked when it is made, and the model itself is judged before anything is compiled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from guilty_layers import chain, images, least_quality
from torch import nn

import fxtrt
from fxtrt.accuracy.gate import Judge
from fxtrt.errors import AccuracyError, CaptureError, SettingsError

BOXES = {"boxes": torch.tensor([[1.0, 1.0, 9.0, 9.0]]), "labels": torch.tensor([1])}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": []}, "images of the gate are empty"),
        ({"images": iter(())}, "images of the gate are empty"),
        ({"images": torch.rand(2, 3)}, "images .* must be an iterable .* not Tensor"),
        ({"images": 3}, "images .* must be an iterable .* not int"),
        ({"metric": "map"}, "metric must be one of agreement, box_ap, or a function: 'map'"),
        ({"metric": 3}, "metric must be one of agreement, box_ap, or a function: 3"),
        ({"metric": "box_ap"}, "needs annotations"),
        ({"annotations": [BOXES]}, "reads no annotations"),
        ({"metric": least_quality}, "does not know the unit of least_quality"),
        ({"most_loss": -0.1}, "most_loss must be a number from 0 on, not -0.1"),
        ({"most_loss": float("nan")}, "most_loss must be a number from 0 on, not nan"),
        ({"most_loss": True}, "most_loss must be a number from 0 on, not True"),
        ({"most_loss": "1%"}, "most_loss must be a number from 0 on, not '1%'"),
        ({"annotations": BOXES, "metric": "box_ap"}, "annotations .* not dict"),
    ],
)
def test_bad_gates(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        fxtrt.Gate(**{"images": [(torch.rand(1),)], **options})


def test_the_losses_that_are_allowed_by_default() -> None:
    assert fxtrt.Gate(images=[1]).most_loss == 0.01
    assert fxtrt.Gate(images=[1], annotations=[BOXES], metric="box_ap").most_loss == 0.003
    assert fxtrt.Gate(images=[1], most_loss=0).most_loss == 0


def test_a_gate_reads_an_iterator_once_and_is_frozen() -> None:
    gate = fxtrt.Gate(images=iter(images(3)))
    assert len(gate.images) == 3
    with pytest.raises(AttributeError):
        gate.most_loss = 1.0  # type: ignore[misc]  # which is the test


class Detector(nn.Module):
    """Finds one box in each image, and returns a list as detectors do."""

    def forward(self, batch: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [{**BOXES, "scores": torch.tensor([0.9])} for _ in batch]


BATCH = ([torch.rand(3, 8, 8), torch.rand(3, 8, 8)],)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("something was captured before the gate was checked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": lambda p, e: float("nan")}, "of the model itself is nan"),
        ({"metric": lambda p, e: "good"}, "returned 'good', expected a number"),
        ({"metric": lambda p, e: None}, "returned None, expected a number"),
        ({"metric": lambda p, e: torch.ones(2)}, "expected a number"),
        ({"metric": lambda p, e: 1 / 0}, "failed on 4 predictions: ZeroDivisionError"),
        ({"metric": "box_ap", "annotations": [BOXES] * 3}, "3 annotations for 4 predictions"),
        ({"metric": "box_ap", "annotations": [{"boxes": []}] * 4}, "annotation of image 0"),
    ],
)
def test_what_cannot_be_judged_is_told_before_anything_is_built(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fxtrt.ahead_of_time.capture_model", never)
    gate = fxtrt.Gate(**{"images": [BATCH, BATCH], "most_loss": 0.1, **options})
    with pytest.raises(AccuracyError, match=message):
        fxtrt.compile(Detector().eval(), BATCH, engine="reference", accuracy_gate=gate)


def test_an_image_that_the_model_does_not_take() -> None:
    gate = fxtrt.Gate(images=[(1, 2, 3)])
    with pytest.raises(CaptureError):
        Judge(gate, Detector().eval())


def test_a_metric_that_is_not_deterministic() -> None:
    numbers = iter([0.5, 0.25])
    gate = fxtrt.Gate(images=[BATCH], metric=lambda p, e: next(numbers), most_loss=1)
    with pytest.raises(AccuracyError, match=r"not deterministic: .* 0\.5 and then 0\.25"):
        Judge(gate, Detector().eval())


def test_a_model_that_is_not_deterministic() -> None:
    calls = itertools.count()

    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) + next(calls)

    gate = fxtrt.Gate(images=images(2), metric=least_quality, most_loss=0.01)
    with pytest.raises(AccuracyError, match="the model is not deterministic: on the first image"):
        Judge(gate, Noise().eval())


def test_random_numbers_are_the_same_each_time() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.rand_like(x[:, 0, 0])

    gate = fxtrt.Gate(images=images(2), metric=least_quality, most_loss=0.01)
    assert Judge(gate, Noise().eval()).baseline == 1.0


def test_what_a_function_receives() -> None:
    """One prediction for each image, and what it is compared with."""
    seen: list[tuple[Sequence[Any], Sequence[Any]]] = []

    def metric(predictions: Sequence[Any], expected: Sequence[Any]) -> float:
        seen.append((predictions, expected))
        return 0.5

    gate = fxtrt.Gate(images=[BATCH, BATCH], annotations=range(4), metric=metric, most_loss=0)
    judge = Judge(gate, Detector().eval())
    assert (judge.images, judge.baseline) == (4, 0.5)
    for predictions, others in seen:
        assert isinstance(predictions, list)
        assert [p["scores"].item() for p in predictions] == [pytest.approx(0.9)] * 4
        assert others == [0, 1, 2, 3]
    predictions = judge.predictions(Detector().eval(), [1])
    judge.loss(predictions, [1])
    assert seen[-1][1] == [2, 3]


def test_without_annotations_a_function_receives_the_models_own_predictions() -> None:
    model = chain(1, {})
    gate = fxtrt.Gate(images=images(2), metric=least_quality, most_loss=0.1)
    judge = Judge(gate, model)
    assert judge.baseline == 1.0
    worse = [[entry * 0.75 for entry in entries] for entries in judge.predictions(model)]
    assert judge.loss(worse) == pytest.approx(0.25)
    ruined = [[entry * torch.nan for entry in entries] for entries in worse]
    assert judge.loss(ruined) == torch.inf


def test_the_model_and_its_images_stay_as_they_are() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count: torch.Tensor
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return x.mul_(2) * 1.0

    model, calls = Writing().eval(), images(2)
    before = [x.clone() for (x,) in calls]
    Judge(fxtrt.Gate(images=calls, metric=least_quality, most_loss=0), model)
    assert model.count == 0
    assert all(torch.equal(x, old) for (x,), old in zip(calls, before, strict=True))
