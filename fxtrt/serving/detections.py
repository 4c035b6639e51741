"""Turns a model's answer for one image into the outputs of a protocol, and into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..detection.detectron2.results import plain

__all__ = ["as_json", "outputs_of"]

_MOST_NUMBERS = 100_000
"""The most numbers of a tensor that become JSON: masks would take hundreds of megabytes."""


def outputs_of(answer: Any) -> dict[str, Any]:
    """Return an answer's values by name; one that has no names is "output".

    Detectron2's instances are their fields by torchvision's names, and its panoptic segmentation is
    two: the map, and "segments_info".
    """
    if isinstance(answer, Mapping):
        outputs = {str(name): value for name, value in plain(answer).items()}
        panoptic = outputs.get("panoptic_seg")
        if isinstance(panoptic, tuple):
            outputs["panoptic_seg"], outputs["segments_info"] = panoptic
        return outputs
    if hasattr(answer, "get_fields"):  # Detectron2's Instances
        fields = answer.get_fields().items()
        return {name: getattr(value, "tensor", value) for name, value in fields}
    if isinstance(answer, list | tuple):
        return {f"output_{number}": value for number, value in enumerate(answer)}
    return {"output": answer}


def as_json(answer: Any, least_score: float = 0.0) -> dict[str, Any]:
    """Return an answer as JSON values.

    Tensors of more than 100,000 numbers are left out, and named under "omitted".

    Args:
        least_score: detections with lower scores are left out.
    """
    outputs = outputs_of(answer)
    scores = outputs.get("scores")
    if isinstance(scores, Tensor) and scores.ndim == 1 and least_score > 0.0:
        kept = scores >= least_score
        outputs = {name: _rows(value, kept) for name, value in outputs.items()}
    large = [name for name, value in outputs.items() if _is_large(value)]
    found = {name: _plain(value) for name, value in outputs.items() if name not in large}
    return {**found, "omitted": large} if large else found


def _rows(value: Any, kept: Tensor) -> Any:
    if isinstance(value, Tensor) and value.ndim and len(value) == len(kept):
        return value[kept]
    return value


def _is_large(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() > _MOST_NUMBERS


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
