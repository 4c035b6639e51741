"""Compares Detectron2's `Instances`."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["assert_same"]


def assert_same(actual: Any, expected: Any) -> None:
    """Fields, types and values are equal, to the bit."""
    assert actual.image_size == expected.image_size
    assert actual.get_fields().keys() == expected.get_fields().keys()
    for name, value in expected.get_fields().items():
        other = actual.get(name)
        assert type(other) is type(value)
        assert torch.equal(getattr(other, "tensor", other), getattr(value, "tensor", value))
