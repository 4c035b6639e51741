"""Make the class, the example and the dynamic sizes of cores, and read their counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.export import Dim

from ..errors import CaptureError
from .host_steps import TooManyCandidates

__all__ = [
    "CANDIDATES",
    "DENSE_CANDIDATES",
    "Core",
    "Found",
    "core_example",
    "counted",
    "varying_batch",
    "varying_sides",
]


CANDIDATES = 2048
"""The number of an image's best boxes that the GPU kernels after a box head look at."""
DENSE_CANDIDATES = 8192
"""The same for RetinaNet and FCOS, whose usual limits of 1000 for each level admit fewer."""


class Core(torch.nn.Module):
    """The networks of a detector, under its names."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)


class Found(NamedTuple):
    """Padded detections of each image, as `fxtrt::box_detections` returns them."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    rows: Tensor
    counts: Tensor
    overflow: Tensor


def core_example(inputs: tuple[Tensor, ...], most_images: int) -> tuple[Tensor, ...]:
    """Return the inputs of a core with two images in place of one, if it may have more than one.

    Tracing specializes on a batch of 1.
    """
    if most_images > 1 and inputs[0].shape[0] == 1:
        return tuple(torch.cat([tensor, tensor]) for tensor in inputs)
    return inputs


def varying_batch(inputs: tuple[Tensor, ...], most_images: int) -> Any:
    """Return the dynamic sizes of a core's inputs where only the number of images varies."""
    batch = inputs[0].shape[0]
    count = {0: Dim("images", min=1, max=max(most_images, batch))} if batch > 1 else {}
    return (count,) * len(inputs)


def varying_sides(
    inputs: tuple[Tensor, ...], most_images: int, step: int, coarsest: int, longest: int
) -> Any:
    """Return the dynamic sizes of a core's inputs, the images first, where sides vary too.

    Args:
        step: what each side is a multiple of.
        coarsest: the largest stride of the pyramid's levels. A level must have at least two rows,
            because tracing specializes on a size of 1.
        longest: the longest side, unless the example's are longer.

    Raises:
        CaptureError: the example is too small for that.
    """
    sides = inputs[0].shape[2:]
    least, most = coarsest // step + 1, max(longest, *sides) // step
    if min(sides) < least * step:
        raise CaptureError(
            f"the padded example has {sides[0]} x {sides[1]} pixels: where sides vary, each must "
            f"have at least {least * step}"
        )
    # Each side has its own name, lest torch takes equal sizes for the same one.
    rows, columns = (Dim(name, min=least, max=most) for name in ("rows", "columns"))
    varying = {2: rows, 3: columns} if step == 1 else {2: step * rows, 3: step * columns}
    of_images, *of_tables = varying_batch(inputs, most_images)
    return ({**of_images, **varying}, *of_tables)


def counted(summary: Tensor) -> list[list[int]]:
    """Return the summary of `place_detections` as numbers, after the one wait for the GPU.

    Raises:
        TooManyCandidates: for an image whose result may differ.
    """
    rows: list[list[int]] = summary.tolist()
    if any(overflow for _, overflow, *_ in rows):
        raise TooManyCandidates
    return rows
