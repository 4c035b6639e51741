"""Turn results without Detectron2's classes into its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.structures import Boxes, Instances
from torch import Tensor

__all__ = ["with_instances"]

_BOXES = ("pred_boxes", "proposal_boxes")


def with_instances(result: Mapping[str, Any], picture: Sequence[int]) -> dict[str, Any]:
    """Return a result of `results_of` with `Instances` in place of dicts of fields.

    Args:
        picture: its height and width.
    """
    return {
        key: _instances(value, picture) if isinstance(value, dict) else value
        for key, value in result.items()
    }


def _instances(fields: Mapping[str, Tensor], picture: Sequence[int]) -> Instances:
    instances = Instances(tuple(picture))
    for name, value in fields.items():
        instances.set(name, Boxes(value) if name in _BOXES else value)
    return instances
