"""Turn the input dicts of Detectron2's models into a padded batch and a table of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling import meta_arch
from torch import Tensor
from torch.export import Dim

from ...errors import CaptureError
from ..host_steps import TooManyCandidates
from ..ops.normalize_images import normalize_images
from ..small_tables import SmallTables
from .structures import padded_sides

__all__ = [
    "ImageBatch",
    "ImageReader",
    "adopt_children",
    "core_example",
    "core_shapes",
    "counted",
    "kept",
]

_LONGEST = 1344
"""The longest side of the model zoo's images, 1333, padded."""


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """What a core takes of a call, and what is made of its results.

    inputs:   the images, normalized and padded, (B, 3, H, W); (B, 2) heights and widths; (B, 4)
              scales of boxes; (B, 4) limits of boxes.
    sizes:    height and width of each image without its padding.
    pictures: height and width of the pictures that detections are scaled to.
    scales:   by which factors, horizontal and vertical.
    """

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    sizes: Sequence[tuple[int, int]]
    pictures: Sequence[tuple[int, int]]
    scales: Sequence[tuple[float, float]]


class ImageReader:
    """Reads lists of input dicts as a model's own `preprocess_image` does.

    If that is Detectron2's, one operator does all of it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._is_own = _has_own_preprocessing(model)
        self._tables = SmallTables()

    def read(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageBatch:
        """Return the batch for a core.

        Raises:
            ValueError: a dict has proposals of its own, which a core would ignore.
        """
        if any("proposals" in one for one in batched_inputs):
            raise ValueError("the inputs have proposals of their own")
        images, sizes = self._preprocessed(batched_inputs)
        pictures = tuple(
            (one.get("height", height), one.get("width", width))
            for one, (height, width) in zip(batched_inputs, sizes, strict=True)
        )
        scales = tuple(
            (across / width, down / height)
            for (down, across), (height, width) in zip(pictures, sizes, strict=True)
        )
        limits = tuple((width, height) * 2 for height, width in pictures)
        twice = tuple(scale * 2 for scale in scales)
        tables = self._tables.on(images.device, sizes, twice, limits)
        return ImageBatch((images, *tables), sizes, pictures, scales)

    def _preprocessed(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """Return normalized, padded images, and their heights and widths without the padding."""
        model = self._model
        if self._is_own:
            batch = model.preprocess_image(batched_inputs)
            return batch.tensor, tuple((int(h), int(w)) for h, w in batch.image_sizes)
        mean, std = model.pixel_mean.flatten(), model.pixel_std.flatten()
        images = [one["image"].to(mean.device) for one in batched_inputs]
        sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
        backbone = model.backbone
        constraints = getattr(backbone, "padding_constraints", None)
        height, width = padded_sides(sizes, backbone.size_divisibility, constraints)
        return normalize_images(images, mean, std, int(height), int(width)), sizes


def _has_own_preprocessing(model: Any) -> bool:
    known = {cls.preprocess_image for cls in vars(meta_arch).values() if _preprocesses(cls)}
    # Without this method, the images are preprocessed in `forward`, in the same way.
    is_known = getattr(type(model), "preprocess_image", None) in {None, *known}
    return not is_known or "preprocess_image" in vars(model) or model.pixel_mean.numel() != 3


def _preprocesses(cls: Any) -> bool:
    return isinstance(cls, type) and hasattr(cls, "preprocess_image")


def core_example(inputs: tuple[Tensor, ...], most_images: int) -> tuple[Tensor, ...]:
    """Return the inputs of a core with two images in place of one, if it may have more than one.

    Tracing specializes on a batch of 1.
    """
    if most_images > 1 and inputs[0].shape[0] == 1:
        return tuple(torch.cat([tensor, tensor]) for tensor in inputs)
    return inputs


def core_shapes(
    inputs: tuple[Tensor, ...], most_images: int, backbone: Any, coarsest: int = 64
) -> Any:
    """Return the dynamic sizes of a core's inputs, the images first.

    Args:
        backbone: its padding decides whether sides vary, and in which steps.
        coarsest: the largest stride of the pyramid's levels. A level must have at least two rows,
            because tracing specializes on a size of 1.

    Raises:
        CaptureError: the example is too small for that.
    """
    images = inputs[0]
    batch, sides = images.shape[0], images.shape[2:]
    count = {0: Dim("images", min=1, max=max(most_images, batch))} if batch > 1 else {}
    constraints = getattr(backbone, "padding_constraints", None) or {}
    if constraints.get("square_size", 0):
        return (count,) * len(inputs)
    step = max(constraints.get("size_divisibility", backbone.size_divisibility), 1)
    least, most = coarsest // step + 1, max(_LONGEST, *sides) // step
    if min(sides) < least * step:
        raise CaptureError(
            f"the padded example has {sides[0]} x {sides[1]} pixels: where sides vary, each must "
            f"have at least {least * step}"
        )
    # Each side has its own name, lest torch takes equal sizes for the same one.
    rows, columns = (Dim(name, min=least, max=most) for name in ("rows", "columns"))
    varying = {2: rows, 3: columns} if step == 1 else {2: step * rows, 3: step * columns}
    return ({**count, **varying}, *[count] * (len(inputs) - 1))


def adopt_children(core: torch.nn.Module, model: torch.nn.Module) -> None:
    """Give a core the submodules of its model, under the same names."""
    for name, child in model.named_children():
        core.add_module(name, child)
    core.train(model.training)


def counted(summary: Tensor) -> list[list[int]]:
    """Return the summary of `place_detections` as numbers, after the one wait for the GPU.

    Raises:
        TooManyCandidates: for an image whose result may differ.
    """
    rows: list[list[int]] = summary.tolist()
    if any(overflow for _, overflow, *_ in rows):
        raise TooManyCandidates
    return rows


def kept(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Return those rows of an image that are detections with an area in the picture.

    Args:
        rows: (D, ...).
        counts: the image's row of the summary.
    """
    count, _, *flags = counts
    if all(flags[:count]):
        return rows[:count]
    return rows[[i for i, flag in enumerate(flags[:count]) if flag]]
