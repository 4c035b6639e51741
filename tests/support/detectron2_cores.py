"""Small detectors of Detectron2 with their cores, and comparisons of what they find."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from detectron2_package import require_detectron2
from small_detectron2 import picture, small_detector

import fxtrt
from fxtrt.detection import recipe_of

__all__ = [
    "assert_agree",
    "assert_agree_exactly",
    "assert_fallback",
    "compiled",
    "core_of",
    "detector",
    "error_of",
    "example",
    "found_in",
    "photo",
    "why_no_core",
]

LIMITS = {"pred_boxes": 1e-2, "proposal_boxes": 1e-2, "scores": 1e-5, "objectness_logits": 1e-4}


@cache
def detector(family: str) -> Any:
    require_detectron2()
    if family == "FCOS":
        pytest.importorskip("detectron2.modeling.meta_arch.fcos", reason="Detectron2 0.4")
    return small_detector(family)


def photo(height: int, width: int, /, **more: Any) -> dict[str, Any]:
    return {"image": picture(height, width), "height": height, "width": width} | more


def example() -> list[dict[str, Any]]:
    return [photo(192, 224)]


def compiled(model: Any, **options: Any) -> Any:
    return fxtrt.compile(model, (example(),), engine="reference", cache_dir=None, **options)


@cache
def core_of(family: str, most_images: int = 1) -> tuple[Any, Any]:
    """A family's model, and its compiled copy."""
    model = detector(family)
    return model, compiled(copy.deepcopy(model), most_images=most_images)


def why_no_core(model: Any) -> str:
    recipe = recipe_of(model)
    assert recipe is not None
    assert recipe.host_steps is not None
    return str(recipe.host_steps(model))


def assert_agree(actual: Any, expected: Any) -> None:
    """Also in the order of the detections, and in the types of all fields."""
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        assert list(one) == list(other)
        for key, value in other.items():
            if key == "sem_seg":
                torch.testing.assert_close(one[key], value, atol=1e-4, rtol=1e-4, equal_nan=True)
            elif key == "panoptic_seg":
                assert_same_segments(one[key], value)
            else:
                assert_same_instances(one[key], value)


def assert_same_instances(actual: Any, expected: Any) -> None:
    assert actual.image_size == expected.image_size
    assert list(actual.get_fields()) == list(expected.get_fields())
    for name, value in expected.get_fields().items():
        field = actual.get(name)
        assert type(field) is type(value)
        found, wanted = getattr(field, "tensor", field), getattr(value, "tensor", value)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), name
        if wanted.dtype in (torch.int64, torch.bool):
            assert (found != wanted).double().mean(dtype=torch.float64).nan_to_num() <= 1e-3, name
        elif name == "pred_keypoints":
            torch.testing.assert_close(found[..., :2], wanted[..., :2], atol=1e-2, rtol=0)
            torch.testing.assert_close(found[..., 2], wanted[..., 2], atol=1e-4, rtol=1e-4)
        else:
            limit = LIMITS.get(name, 1e-3)
            torch.testing.assert_close(found, wanted, atol=limit, rtol=0, msg=name)
    if expected.has("pred_classes"):
        assert torch.equal(actual.pred_classes, expected.pred_classes)


def assert_same_segments(actual: Any, expected: Any) -> None:
    (pixels, segments), (wanted, others) = actual, expected
    assert (pixels != wanted).double().mean() <= 1e-3
    assert [{**one, "area": 0, "score": 0} for one in segments] == [
        {**one, "area": 0, "score": 0} for one in others
    ]


def found_in(answer: Any) -> list[int]:
    keys = ("instances", "proposals")
    return [len(one[key]) for one in answer for key in keys if key in one]


def error_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Exception:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def assert_fallback(fast: Any, call: Any, expected: Any, reason: str) -> None:
    fast.forward.fallbacks.clear()
    assert_agree_exactly(fast(call), expected)
    ((actual, count),) = fast.forward.fallbacks.items()
    assert reason in actual
    assert count == 1
    assert fast.forward.fallbacks.compiled == 0


def assert_agree_exactly(actual: Any, expected: Any) -> None:
    for one, other in zip(actual, expected, strict=True):
        for key, value in other.items():
            for name, field in value.get_fields().items():
                found = one[key].get(name)
                assert torch.equal(getattr(found, "tensor", found), getattr(field, "tensor", field))
