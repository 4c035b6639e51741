"""Which sizes of the inputs of a model's parts vary from call to call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from math import ceil
from typing import Any

import torch
from torch.export import Dim
from torch.utils import _pytree as pytree

from ..graph.specs import Call

__all__ = ["PartShapes", "image_shapes", "region_counts"]

PartShapes = Callable[[torch.nn.Module, Call], Any]
"""The dynamic shapes of the call of a part; False: the part is not to be captured."""

_MOST_IMAGES = 16
_MOST_ROWS = 1024
"""In a part of a model, a leading size above _MOST_IMAGES counts regions of interest: it depends
on the picture, so the part is compiled for up to _MOST_ROWS of them, or more where the example has
many in each image."""

_STRIDE = 32
"""Detectors pad their images to multiples of it."""

_SHORTEST = 2 * _STRIDE
"""torch traces a size of 1 apart, so the coarsest feature map has at least two rows."""


def region_counts(_: torch.nn.Module, call: Call) -> Any:
    """Leading sizes that count regions vary."""

    def spec(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] > _MOST_IMAGES:
            return _rows(value)
        return None

    return _map(spec, call)


def image_shapes(
    calls: Mapping[str, Call], growth: int, most_images: int, longest: int = 0
) -> PartShapes | None:
    """Heights, widths and the number of images vary too, in the parts of a detector whose
    `backbone` takes its images.

    Only parts with weights are captured, not what computes anchors or pools regions. Both sides
    may be up to the longer side of the example's padded images, times `growth`.

    Args:
        calls: of the parts, by path.
        most_images: with one image in `calls`, that is the only number.
        longest: both sides may be up to that, in any case.

    Returns:
        None where there is no such backbone, or the images are smaller than 64 pixels.
    """
    backbone = calls.get("backbone")
    tensors = [] if backbone is None else pytree.tree_leaves((backbone.args, backbone.kwargs))
    if len(tensors) != 1 or not isinstance(tensors[0], torch.Tensor) or tensors[0].dim() != 4:
        return None
    images = tensors[0]
    side = max(images.shape[2:])
    most = max(growth * side, -(-longest // _STRIDE) * _STRIDE)
    if min(images.shape[2:]) < _SHORTEST or most <= _SHORTEST:
        return None
    limits = _Limits(images.shape[0], max(most_images, images.shape[0]), side, most)
    numbers = count()

    def shapes(part: torch.nn.Module, call: Call) -> Any:
        one = _ImageShapes(limits, numbers)
        specs = _map(one.spec, call)
        has_weights = next(part.parameters(), None) is not None
        return specs if has_weights and one.features != one.regions else False

    return shapes


@dataclass(frozen=True, slots=True)
class _Limits:
    """How many images there are in the example, and at most; and their longest side, likewise."""

    batch: int
    most_images: int
    longest: int
    most: int


@dataclass(slots=True)
class _ImageShapes:
    """The sizes of one call that vary.

    features, regions: whether the call takes any of them.
    """

    limits: _Limits
    numbers: Iterator[int]
    features: bool = False
    regions: bool = False

    def spec(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.dim():
            return None
        batch = self.limits.batch
        if value.shape[0] == batch and value.dim() == 4:
            self.features = True
            return self._image(value)
        if value.shape[0] > 1 and value.shape[0] != batch:
            self.regions = True
            return _rows(value, -(-value.shape[0] // batch) * self.limits.most_images)
        return None

    def _image(self, value: torch.Tensor) -> Any:
        height, width = value.shape[2:]
        limits = self.limits
        if max(height, width) == limits.longest and not (height % _STRIDE or width % _STRIDE):
            high = limits.most // _STRIDE
            # Equal sizes must not become one dimension: each has a name of its own.
            sides = [
                Dim(f"side_{next(self.numbers)}", min=_SHORTEST // _STRIDE, max=high)
                for _ in range(2)
            ]
            return {2: _STRIDE * sides[0], 3: _STRIDE * sides[1]} | self._count()
        most = ceil(Fraction(max(height, width) * limits.most, limits.longest))
        return {dim: Dim.AUTO(max=max(2, most)) for dim in (2, 3)} | self._count()

    def _count(self) -> dict[int, Any]:
        """The number of images: the same for all that the call takes."""
        if self.limits.batch == 1:  # torch traces a size of 1 apart.
            return {}
        return {0: Dim("images", min=1, max=self.limits.most_images)}


def _rows(value: torch.Tensor, most: int = 0) -> Any:
    return {0: Dim.AUTO(max=max(_MOST_ROWS, value.shape[0], most))}


def _map(spec: Callable[[Any], Any], call: Call) -> Any:
    return pytree.tree_map(spec, (*call.args, *call.kwargs.values()))
