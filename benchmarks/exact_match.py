"""Tells whether two answers of a detector are the same detections, up to ties.

A tie is a decision of a detector that rounding may turn: two scores, or an overlap and the
threshold of the suppression, lie closer together than `TIE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from fxtrt.numerics.compare import fields_of

__all__ = ["TIE", "Exactness", "Rules"]

TIE = 1e-5
_PIXELS, _SCORE = 1e-2, 1e-5
"""The most by which a box and a score may differ from those of the same detection."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits by which a detector picks its detections.

    score: the least score.
    nms:   the largest overlap of two detections of one class.
    most:  the most detections of an image.
    """

    score: float
    nms: float
    most: int

    @classmethod
    def of(cls, model: Any) -> Rules:
        """Return the rules of a detector of Detectron2."""
        heads: Any = getattr(model, "roi_heads", None)
        if heads is None:
            return cls(
                model.test_score_thresh, model.test_nms_thresh, model.max_detections_per_image
            )
        predictor = heads.box_predictor
        last: Any = predictor[-1] if isinstance(predictor, torch.nn.ModuleList) else predictor
        return cls(last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image)


@dataclass(slots=True)
class Exactness:
    """The results of comparing many answers.

    detections: those expected.
    ties:       differences that are shown to be ties, by their kind.
    faults:     all other differences, each with the nearest tie.
    boxes, scores: the largest differences of detections that both answers have.
    """

    images: int = 0
    detections: int = 0
    ties: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    boxes: float = 0.0
    scores: float = 0.0

    def add(self, actual: Sequence[Any], expected: Sequence[Any], rules: Rules) -> None:
        """Compare the answers for a batch of images, dicts of Detectron2 or of torchvision."""
        for one, other in zip(actual, expected, strict=True):
            self._add_image(_fields(one), _fields(other), rules)

    def _add_image(
        self, actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], rules: Rules
    ) -> None:
        self.images += 1
        self.detections += len(expected["scores"])
        of_actual, of_expected = _pairs(actual, expected)
        self.boxes = max(self.boxes, _gap("boxes", actual, of_actual, expected, of_expected))
        self.scores = max(self.scores, _gap("scores", actual, of_actual, expected, of_expected))
        self._add_order(of_actual, expected["scores"][of_expected].double())
        only = [_without(len(actual["scores"]), of_actual)]
        only.append(_without(len(expected["scores"]), of_expected))
        if any(only):
            kinds, rest = _Differences((actual, expected), only, rules).explain()
            self.ties.update(kinds)
            self.faults += rest

    def _add_order(self, positions: Sequence[int], scores: Tensor) -> None:
        """Count the detections that come in another order; their scores must be ties."""
        at = torch.tensor(positions)
        turned = (at[:, None] > at).triu(1)
        gaps = (scores[:, None] - scores).abs()
        for row in turned.any(0).nonzero()[:, 0].tolist():
            gap = float(gaps[turned[:, row], row].max())
            if gap < TIE:
                self.ties["order"] += 1
            else:
                self.faults.append(f"another order, though scores differ by {gap:.1e}")


def _fields(answer: Any) -> Mapping[str, Tensor]:
    fields = fields_of(answer["instances"]) if "instances" in answer else answer
    return {name: fields[name].cpu() for name in ("boxes", "scores", "labels")}


def _pairs(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[list[int], list[int]]:
    """Return the indices of the detections that both answers have, as `expected` orders them."""
    boxes = torch.cdist(actual["boxes"].double(), expected["boxes"].double(), p=torch.inf)
    scores = (actual["scores"].double()[:, None] - expected["scores"].double()).abs()
    fits = (boxes <= _PIXELS) & (scores <= _SCORE)
    fits &= actual["labels"][:, None] == expected["labels"]
    distance = torch.where(fits, boxes / _PIXELS + scores / _SCORE, torch.inf)
    found: tuple[list[int], list[int]] = [], []
    for column in range(distance.shape[1] if len(distance) else 0):
        row = int(distance[:, column].argmin())
        if distance[row, column] < torch.inf:
            found[0].append(row)
            found[1].append(column)
            distance[row] = torch.inf
    return found


def _gap(
    name: str,
    actual: Mapping[str, Tensor],
    of_actual: list[int],
    expected: Mapping[str, Tensor],
    of_expected: list[int],
) -> float:
    gap = (actual[name][of_actual].double() - expected[name][of_expected].double()).abs()
    return float(gap.max()) if gap.numel() else 0.0


def _without(count: int, indices: Iterable[int]) -> list[int]:
    return sorted(set(range(count)) - set(indices))


class _Differences:
    """The detections that only one of two answers has, and which of them are ties."""

    def __init__(
        self, sides: Sequence[Mapping[str, Tensor]], only: Sequence[list[int]], rules: Rules
    ) -> None:
        self._sides = sides
        self._rules = rules
        self._open = [(side, row) for side in (0, 1) for row in only[side]]
        self._known: list[tuple[int, int]] = []

    def explain(self) -> tuple[Counter[str], list[str]]:
        """Return the kinds of the ties, and a line for each other difference."""
        kinds: Counter[str] = Counter()
        # A tie may turn further decisions, so this goes on until nothing more is explained.
        while explained := [(key, kind) for key in self._open if (kind := self._kind(*key))]:
            for key, kind in explained:
                kinds[kind] += 1
                self._open.remove(key)
                self._known.append(key)
        return kinds, [self._line(*key) for key in self._open]

    def _kind(self, side: int, row: int) -> str | None:
        score, other = self._score(side, row), self._sides[1 - side]["scores"].double()
        if abs(score - self._rules.score) < TIE:
            return "score threshold"
        is_full = len(other) == self._rules.most
        if is_full and abs(score - float(other.min())) < TIE:
            return "last place"
        if self._nearest_overlap(side, row) < TIE:
            return "suppression"
        for known_side, known in self._known:
            if known_side == side:
                continue
            if self._may_suppress(side, row, known):
                return "suppressed by a tie"
            if is_full and score <= float(other.min()):
                return "pushed out by a tie"
        return None

    def _score(self, side: int, row: int) -> float:
        return float(self._sides[side]["scores"][row])

    def _overlaps(self, side: int, row: int, of: int) -> Tensor:
        """Return the overlaps with those of a side that may suppress a detection; 0 for others."""
        mine, theirs = self._sides[side], self._sides[of]
        overlaps: Tensor = box_iou(mine["boxes"][row][None].double(), theirs["boxes"].double())[0]
        rivals = theirs["labels"] == mine["labels"][row]
        rivals &= theirs["scores"].double() >= self._score(side, row) - TIE
        if side == of:
            rivals[row] = False
        return overlaps.nan_to_num().mul(rivals)

    def _nearest_overlap(self, side: int, row: int) -> float:
        both = torch.cat([self._overlaps(side, row, of) for of in (0, 1)])
        return float((both - self._rules.nms).abs().min())

    def _may_suppress(self, side: int, row: int, known: int) -> bool:
        return float(self._overlaps(side, row, 1 - side)[known]) > self._rules.nms - TIE

    def _line(self, side: int, row: int) -> str:
        where, score = ("not expected", "missing")[side], self._score(side, row)
        return (
            f"{where}: score {score:.6f}, the threshold is {self._rules.score}; the overlap "
            f"nearest to the limit is {self._nearest_overlap(side, row):.1e} away"
        )
