"""Turns shapes into the inputs of a model: an example, its dynamic sizes, and other sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import Dim

__all__ = ["Inputs", "Shapes", "image", "image_pair", "make", "pyramid", "regions"]

Shapes = tuple[Any, ...]
"""A shape, or a list of shapes, for each argument of a model."""

_MOST_IMAGES, _MOST_REGIONS, _MOST_STEPS, _LARGEST_SIDE = 4, 64, 16, 256
"""The upper bounds of sizes in a dynamic graph."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The shapes of a model's inputs.

    example: the example of the static graph.
    traced:  the example of the dynamic graph.
    others:  more shapes that the dynamic graph must take.
    dynamic: its dynamic shapes, as `torch.export.export` takes them.
    varies:  the dynamic shapes in words.
    """

    example: Shapes
    traced: Shapes
    others: tuple[Shapes, ...]
    dynamic: Any
    varies: str


def make(shapes: Shapes) -> tuple[Any, ...]:
    """Return normal random float32 tensors of these shapes, the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        [torch.randn(shape, generator=generator) for shape in argument]
        if isinstance(argument, list)
        else torch.randn(argument, generator=generator)
        for argument in shapes
    )


def image(
    height: int, width: int, step: int | None = 32, steps: tuple[int, int] = (2, _MOST_STEPS)
) -> Inputs:
    """Return a batch of images; height and width vary in multiples of `step`, or not at all.

    Args:
        steps: the fewest and the most multiples.
    """
    if step is None:
        fixed = {0: _images()}
        return _inputs(lambda n, h, w: ((n, 3, height, width),), 0, 0, (fixed,), "N")
    height_steps, width_steps = (Dim(name, min=steps[0], max=steps[1]) for name in "hw")
    dynamic = ({0: _images(), 2: step * height_steps, 3: step * width_steps},)

    def shapes(n: int, h: int, w: int) -> Shapes:
        return ((n, 3, h * step, w * step),)

    words = f"N, {step} H, {step} W"
    return _inputs(shapes, height // step, width // step, dynamic, words)


def image_pair(height: int, width: int, step: int, steps: tuple[int, int]) -> Inputs:
    """Return two batches of two images each; height and width vary as in `image`."""
    single = image(height, width, step, steps)
    others = tuple(((2, *shape[1:]),) * 2 for (shape,) in single.others)
    sides = {axis: size for axis, size in single.dynamic[0].items() if axis}
    return Inputs(
        single.example * 2, single.traced * 2, others, (sides,) * 2, f"{step} H, {step} W"
    )


def pyramid(*channels: int) -> Inputs:
    """Return a list of feature maps, each half the size of the one before it."""
    last = len(channels) - 1

    def shapes(n: int, h: int, w: int) -> Shapes:
        return ([(n, c, h << (last - i), w << (last - i)) for i, c in enumerate(channels)],)

    images = _images()
    sizes = [{0: images, 2: _side(f"h{i}"), 3: _side(f"w{i}")} for i in range(len(channels))]
    return _inputs(shapes, 2, 3, (sizes,), "N, H, W of each level")


def regions(channels: int, size: int) -> Inputs:
    """Return the features of regions of interest, `size` x `size` each."""
    number = {0: Dim("n", min=1, max=_MOST_REGIONS)}
    return _inputs(lambda n, h, w: ((8 * n, channels, size, size),), 0, 0, (number,), "N")


def _inputs(
    shapes: Callable[[int, int, int], Shapes], high: int, wide: int, dynamic: Any, varies: str
) -> Inputs:
    others = shapes(1, high, wide + 2), shapes(3, high + 1, wide)
    return Inputs(shapes(1, high, wide), shapes(2, high, wide), others, dynamic, varies)


def _images() -> Any:
    return Dim("n", min=1, max=_MOST_IMAGES)


def _side(name: str) -> Any:
    return Dim(name, min=1, max=_LARGEST_SIDE)
