"""Turn two answers of a model into the largest difference of every output, detections paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

__all__ = ["Difference", "compare", "fields_of", "largest_gap", "table"]

_DETECTION = ("boxes", "labels", "scores")
_FIELDS = {"pred_boxes": "boxes", "pred_classes": "labels"}
"""Names of fields in Detectron2's `Instances`, and torchvision's names for them."""
_ABSOLUTE = {"boxes": 1e-3, "scores": 1e-4, "labels": 0.0}
"""Absolute tolerances: pixels for boxes, probabilities for scores, and none for labels."""
_RELATIVE = 1e-4
"""The tolerance of any other output, as a share of its largest magnitude."""
_ROUNDINGS = 2.0
"""The same in units of the output's dtype, whichever is more: float16 is rounded in many ways."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between an output and the expected one.

    count:     the rows that were compared, of those expected: "100 of 100".
    largest:   the largest absolute difference; infinite if shapes, dtypes or NaNs disagree.
    tolerance: the largest difference that still counts as the same.
    """

    output: str
    count: str
    largest: float
    tolerance: float
    same_count: bool = True

    @property
    def agrees(self) -> bool:
        return self.same_count and self.largest <= self.tolerance


def compare(actual: Any, expected: Any) -> tuple[Difference, ...]:
    """Return the difference of every output.

    Detections of almost equal score may come in either order, so detections are paired first,
    nearest with nearest.

    Args:
        actual, expected: tensors, or mappings and sequences of them. Detections are mappings with
            boxes, labels and scores, or Detectron2's `Instances`.
    """
    return tuple(_compare(actual, expected, ""))


def table(differences: Sequence[Difference]) -> str:
    """Return the differences as a table for people."""
    rows = [
        [d.output, d.count, f"{d.largest:.2e}", f"{d.tolerance:.0e}", "yes" if d.agrees else "NO"]
        for d in differences
    ]
    headers = ["output", "compared", "largest difference", "tolerance", "same"]
    return tabulate(rows, headers=headers, disable_numparse=True)


def _compare(actual: Any, expected: Any, name: str) -> list[Difference]:
    if hasattr(expected, "get_fields"):
        actual, expected = fields_of(actual), fields_of(expected)
    if isinstance(expected, Tensor):
        return [_difference(name or "output", actual, expected)]
    if isinstance(expected, Mapping):
        if set(actual) != set(expected):
            raise ValueError(f"the outputs are {sorted(actual)}, expected {sorted(expected)}")
        if set(_DETECTION) <= set(expected):
            return _compare_detections(actual, expected, name)
        return [d for key in expected for d in _compare(actual[key], expected[key], name + key)]
    if not isinstance(expected, Sequence) or isinstance(expected, str):
        return [Difference(name, "1", 0.0 if actual == expected else torch.inf, 0.0)]
    if len(actual) != len(expected):
        raise ValueError(f"there are {len(actual)} outputs, expected {len(expected)}")
    single = len(expected) == 1
    pairs = enumerate(zip(actual, expected, strict=True))
    return [d for i, (a, e) in pairs for d in _compare(a, e, name if single else f"{name}{i}.")]


def fields_of(instances: Any) -> dict[str, Tensor]:
    """Return the tensors in Detectron2's `Instances`, by torchvision's names if it has one."""
    return {
        _FIELDS.get(name, name): getattr(value, "tensor", value)
        for name, value in instances.get_fields().items()
    }


def _compare_detections(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str
) -> list[Difference]:
    a, e = pair(actual, expected)
    if name and not name.endswith("."):
        name += "."
    count = f"{len(e)} of {len(expected['boxes'])}"
    extra = len(actual["boxes"]) - len(expected["boxes"])
    if extra > 0:
        count += f", {extra} more"
    return [
        _difference(name + key, actual[key][a], expected[key][e], count, same_count=extra == 0)
        for key in expected
    ]


def pair(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> tuple[list[int], list[int]]:
    """Return indices into both that pair each detection with the nearest one that is left."""
    boxes = torch.cdist(actual["boxes"].double(), expected["boxes"].double(), p=torch.inf)
    scores = (actual["scores"].double()[:, None] - expected["scores"].double()).abs()
    other = actual["labels"][:, None] != expected["labels"]
    distance = boxes + scores + other * 1e6
    pairs: list[tuple[int, int]] = []
    for _ in range(min(distance.shape)):
        i, j = divmod(int(distance.argmin()), distance.shape[1])
        pairs.append((i, j))
        distance[i], distance[:, j] = torch.inf, torch.inf
    pairs.sort(key=lambda indices: indices[1])
    return [i for i, _ in pairs], [j for _, j in pairs]


def _difference(
    name: str, actual: Tensor, expected: Tensor, count: str = "", same_count: bool = True
) -> Difference:
    count = count or "x".join(map(str, expected.shape)) or "scalar"
    share = _RELATIVE
    if expected.is_floating_point():
        share = max(share, _ROUNDINGS * torch.finfo(expected.dtype).eps)
    # Infinities would tolerate anything.
    relative = share * max(1.0, _largest(expected[expected.isfinite()]))
    tolerance = _ABSOLUTE.get(name.rpartition(".")[2], relative)
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return Difference(name, count, torch.inf, tolerance, same_count)
    return Difference(name, count, largest_gap(actual, expected), tolerance, same_count)


def largest_gap(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference; infinite if only one of two elements is NaN."""
    gap = (actual.double() - expected.double()).abs()
    gap[(actual == expected) | (actual.isnan() & expected.isnan())] = 0
    return _largest(gap.nan_to_num(torch.inf))


def _largest(value: Tensor) -> float:
    return float(value.double().abs().max()) if value.numel() else 0.0
