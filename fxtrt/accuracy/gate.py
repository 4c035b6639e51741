"""Declare a bound on the loss of accuracy, and judge a model by it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..capture.arguments import call_of
from ..capture.twin import require_module
from ..capture.untouched import untouched, untouched_modes
from ..errors import AccuracyError, SettingsError
from ..graph.specs import Call
from .metrics import agreement, box_ap

__all__ = ["Gate", "Judge", "Predictions"]

Metric = Callable[[Sequence[Any], Sequence[Any]], Any]

_METRICS: Mapping[str, tuple[Metric, float]] = {
    "agreement": (agreement, 0.01),
    "box_ap": (box_ap, 0.003),
}
"""The metrics by their names, and how much of each a compiled model may lose by default."""

Predictions = list[list[Any]]
"""The answers of a model to each item of a gate's images, one entry for each image of the item."""


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """A bound on the accuracy that a compiled model may lose against the model itself.

    images:      calls to judge by, each written like the `inputs` of `fxtrt.compile`.
    annotations: what is right for each image, in their order; None judges by what the model itself
                 answers.
    metric:      "agreement" with the model's own answers, "box_ap" with annotations, or a function
                 of two lists with one entry for each image: the predictions, and the annotations,
                 or else what the model itself predicts. It returns a number, and higher is better.
                 Where a model returns a list, as detectors do, its elements are the predictions for
                 the images of that call; anything else counts as one prediction.
    most_loss:   how much lower than the model's own the metric may be, in its own unit. None
                 stands for 0.01 of agreement and 0.003 of AP, both of which are in 0..1; for a
                 function it must be given.
    """

    images: Sequence[Any]
    annotations: Sequence[Any] | None
    metric: str | Metric
    most_loss: float

    def __init__(
        self,
        *,
        images: Iterable[Any],
        annotations: Iterable[Any] | None = None,
        metric: str | Metric = "agreement",
        most_loss: float | None = None,
    ) -> None:
        """Read all images and annotations, and check what can be checked without a model.

        Raises:
            SettingsError: a value is wrong, or another is missing that it needs.
        """
        set_field = object.__setattr__
        set_field(self, "images", _items("images", images))
        if not self.images:
            raise SettingsError("images of the gate are empty: give some that are like the user's")
        taken = None if annotations is None else _items("annotations", annotations)
        set_field(self, "annotations", taken)
        set_field(self, "metric", metric)
        self._require_metric()
        set_field(self, "most_loss", self._checked_loss(most_loss))

    @property
    def metric_name(self) -> str:
        """Return the metric's name, also of a function."""
        if isinstance(self.metric, str):
            return self.metric
        return str(getattr(self.metric, "__name__", type(self.metric).__name__))

    @property
    def function(self) -> Metric:
        """Return the metric as a function."""
        return _METRICS[self.metric][0] if isinstance(self.metric, str) else self.metric

    def _require_metric(self) -> None:
        known = ", ".join(_METRICS)
        if isinstance(self.metric, str) and self.metric not in _METRICS:
            raise SettingsError(f"metric must be one of {known}, or a function: {self.metric!r}")
        if not isinstance(self.metric, str) and not callable(self.metric):
            raise SettingsError(f"metric must be one of {known}, or a function: {self.metric!r}")
        if self.metric == "box_ap" and self.annotations is None:
            raise SettingsError(
                'metric="box_ap" needs annotations; metric="agreement" judges without'
            )
        if self.metric == "agreement" and self.annotations is not None:
            raise SettingsError(
                'metric="agreement" compares with the model\'s own answers and reads no '
                'annotations: for these there is metric="box_ap"'
            )

    def _checked_loss(self, value: Any) -> float:
        if value is None:
            if not isinstance(self.metric, str):
                raise SettingsError(
                    f"most_loss is missing: fxtrt does not know the unit of {self.metric_name}"
                )
            return _METRICS[self.metric][1]
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise SettingsError(f"most_loss must be a number from 0 on, not {value!r}")
        return float(value)


def _items(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, (torch.Tensor, Mapping, str)) or not isinstance(values, Iterable):
        raise SettingsError(
            f"{name} of the gate must be an iterable with an item for each, not "
            f"{type(values).__name__}"
        )
    return tuple(values)


class Judge:
    """Judges predictions by a gate, against those of the model itself.

    baseline: what the metric gives for the model itself.
    """

    def __init__(self, gate: Gate, model: torch.nn.Module) -> None:
        """Run the model on all images, and judge it.

        Raises:
            AccuracyError: the metric cannot judge the model, or is not deterministic.
            CaptureError: the model does not take an image.
        """
        require_module(model)
        self.gate = gate
        self._calls = [call_of(model, image) for image in gate.images]
        self._expected: Predictions = self.predictions(model)
        self._require_fit()
        self.baseline = self._sound(self._expected)
        if (again := self._sound(self._expected)) != self.baseline:
            raise AccuracyError(
                f"{gate.metric_name} is not deterministic: for the same predictions it gives "
                f"{self.baseline:g} and then {again:g}"
            )
        first = [*self.predictions(model, [0]), *self._expected[1:]]
        again = self._sound(first)
        if abs(again - self.baseline) > gate.most_loss:
            raise AccuracyError(
                f"the model is not deterministic: on the first image again, {gate.metric_name} is "
                f"{again:g} instead of {self.baseline:g}, which is more than most_loss allows"
            )

    @property
    def images(self) -> int:
        """Return how many images there are in all items."""
        return sum(map(len, self._expected))

    @property
    def items(self) -> range:
        """Return the numbers of all items of `images`."""
        return range(len(self._calls))

    def predictions(
        self, model: torch.nn.Module, items: Sequence[int] | None = None
    ) -> Predictions:
        """Run a model on some items, or on all of them; it is left as it was."""
        calls = [self._calls[item] for item in (self.items if items is None else items)]
        with torch.no_grad(), untouched(model):
            return [_entries(self._run(model, call)) for call in calls]

    def value(self, predictions: Predictions, items: Sequence[int] | None = None) -> float:
        """Return the metric of predictions for some items, or for all; NaN if it is none.

        Raises:
            AccuracyError: the metric failed, or returned no number.
        """
        items = self.items if items is None else items
        flat = [entry for entries in predictions for entry in entries]
        with torch.no_grad(), untouched_modes():
            return _number(self.gate, flat, [e for item in items for e in self._others(item)])

    def loss(self, predictions: Predictions, items: Sequence[int] | None = None) -> float:
        """Return by how much the metric is lower than the model's own; infinity if it is NaN."""
        expected = self._expected if items is None else [self._expected[item] for item in items]
        best = self.baseline if items is None else self.value(expected, items)
        value = self.value(predictions, items)
        return math.inf if math.isnan(value) else best - value

    def can_judge(self, items: Sequence[int]) -> bool:
        """Return whether the metric is defined for these items alone."""
        try:
            return math.isfinite(self.value([self._expected[item] for item in items], items))
        except AccuracyError:  # such as that no image of these has an annotated box
            return False

    def call(self, item: int) -> Call:
        """Return an item as a call of the model."""
        return self._calls[item]

    def _run(self, model: torch.nn.Module, call: Call) -> Any:
        with untouched((call.args, call.kwargs)):
            return model(*call.args, **call.kwargs)

    def _others(self, item: int) -> Iterator[Any]:
        """Yield what the predictions for an item are compared with."""
        if self.gate.annotations is None:
            yield from self._expected[item]
            return
        start = sum(map(len, self._expected[:item]))
        yield from self.gate.annotations[start : start + len(self._expected[item])]

    def _require_fit(self) -> None:
        count, annotations = sum(map(len, self._expected)), self.gate.annotations
        if annotations is not None and len(annotations) != count:
            raise AccuracyError(
                f"there are {len(annotations)} annotations for {count} predictions: give one for "
                f"each image"
            )

    def _sound(self, predictions: Predictions) -> float:
        value = self.value(predictions)
        if not math.isfinite(value):
            raise AccuracyError(
                f"{self.gate.metric_name} of the model itself is {value}: nothing can be compared "
                f"with that"
            )
        return value


def _entries(answer: Any) -> list[Any]:
    """Return the predictions for the images of one call, without what autograd or graphs hold."""
    entries = list(answer) if isinstance(answer, list) else [answer]
    # A CUDA graph gives its outputs the same memory at the next call.
    return [pytree.tree_map_only(torch.Tensor, torch.clone, entry) for entry in entries]


def _number(gate: Gate, predictions: list[Any], others: list[Any]) -> float:
    try:
        value: Any = gate.function(predictions, others)
    except AccuracyError:
        raise
    except Exception as error:  # The metric is the user's, and may raise anything.
        raise AccuracyError(
            f"{gate.metric_name} failed on {len(predictions)} predictions: "
            f"{type(error).__name__}: {error}"
        ) from error
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise AccuracyError(f"{gate.metric_name} returned {value!r:.80}, expected a number")
    return float(value)
