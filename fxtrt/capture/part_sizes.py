"""Turns the example calls of a model's parts into the dynamic shapes to capture them with."""

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
"""Returns the dynamic shapes for a part and its call, or False if it must not be captured."""

_MOST_IMAGES = 16
_MOST_ROWS = 1024
"""A leading size above _MOST_IMAGES is taken for a number of regions of interest. It depends on the
picture, so the part is compiled for up to _MOST_ROWS of them, or for as many as the example has."""

_STRIDE = 32
"""Detectors pad the sides of their images to multiples of this."""

_SHORTEST = 2 * _STRIDE
"""The smallest side: torch specializes a size of 1, so the coarsest feature map has two rows."""


def region_counts(_: torch.nn.Module, call: Call) -> Any:
    """Make those leading sizes dynamic that are numbers of regions."""

    def spec(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() and value.shape[0] > _MOST_IMAGES:
            return _rows(value)
        return None

    return _map(spec, call)


def image_shapes(
    calls: Mapping[str, Call], growth: int, most_images: int, longest: int = 0
) -> PartShapes | None:
    """Make heights, widths and the number of images dynamic too, for the parts of a detector.

    Only parts with weights are captured, not those that compute anchors or pool regions. Each side
    may grow to the longer side of the example's padded images times `growth`.

    Args:
        calls: the calls of the parts by path; that of `backbone` takes the images.
        most_images: the upper bound of images; if `calls` have one image, their number is static.
        longest: a side that is allowed whatever `growth` is.

    Returns:
        None if there is no such backbone, or if the images are smaller than 64 pixels.
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
    """The sizes of the example, and their upper bounds.

    batch, most_images: the number of images.
    longest, most:      the longer side of the images.
    """

    batch: int
    most_images: int
    longest: int
    most: int


@dataclass(slots=True)
class _ImageShapes:
    """Decides which sizes of one call are dynamic.

    features, regions: whether the call takes feature maps, or features of regions.
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
            # Each dimension has its own name, lest torch takes equal sizes for the same one.
            sides = [
                Dim(f"side_{next(self.numbers)}", min=_SHORTEST // _STRIDE, max=high)
                for _ in range(2)
            ]
            return {2: _STRIDE * sides[0], 3: _STRIDE * sides[1]} | self._count()
        most = ceil(Fraction(max(height, width) * limits.most, limits.longest))
        return {dim: Dim.AUTO(max=max(2, most)) for dim in (2, 3)} | self._count()

    def _count(self) -> dict[int, Any]:
        """Return the number of images as a dimension that all inputs of the call share."""
        if self.limits.batch == 1:  # torch specializes a size of 1.
            return {}
        return {0: Dim("images", min=1, max=self.limits.most_images)}


def _rows(value: torch.Tensor, most: int = 0) -> Any:
    return {0: Dim.AUTO(max=max(_MOST_ROWS, value.shape[0], most))}


def _map(spec: Callable[[Any], Any], call: Call) -> Any:
    return pytree.tree_map(spec, (*call.args, *call.kwargs.values()))
