"""Turn the input dicts of Detectron2's models into a padded batch and a table of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from detectron2.modeling import meta_arch
from torch import Tensor

from ..core_batch import varying_batch, varying_sides
from ..normalized_batch import normalized_batch
from ..small_tables import SmallTables
from .structures import padded_sides

__all__ = ["ImageBatch", "ImageReader", "core_shapes", "kept"]

_LONGEST = 1344
"""The longest side of the model zoo's images, 1333, padded."""


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """The inputs of a core for one call, and the sizes that turn its outputs into results.

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
    """Reads lists of input dicts as a model's `preprocess_image` does.

    If that is Detectron2's, `normalized_batch` does the same in fewer steps; another one is called.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._is_own = _has_own_preprocessing(model)
        self._tables = SmallTables()

    def read(self, batched_inputs: Sequence[dict[str, Any]]) -> ImageBatch:
        """Return the batch for a core.

        Raises:
            ValueError: a dict has proposals of its own, which a core would ignore, or a size of its
                picture that is no whole number.
        """
        if any("proposals" in one for one in batched_inputs):
            raise ValueError("the inputs have proposals of their own")
        images, sizes = self._preprocessed(batched_inputs)
        pictures = tuple(
            (one.get("height", height), one.get("width", width))
            for one, (height, width) in zip(batched_inputs, sizes, strict=True)
        )
        if not all(isinstance(side, Integral) for sides in pictures for side in sides):
            raise ValueError("a picture's height or width is no whole number")
        scales = tuple(
            (across / width, down / height)
            for (down, across), (height, width) in zip(pictures, sizes, strict=True)
        )
        limits = tuple((width, height) * 2 for height, width in pictures)
        twice = tuple(scale * 2 for scale in scales)
        of_images, of_scales, of_limits = self._tables.on(images.device, sizes, twice, limits)
        inputs = (images, of_images, of_scales, of_limits)
        return ImageBatch(inputs, sizes, pictures, scales)

    def _preprocessed(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """Return normalized, padded images, and their heights and widths without the padding."""
        model = self._model
        if self._is_own:
            batch = model.preprocess_image(batched_inputs)
            return batch.tensor, tuple((int(h), int(w)) for h, w in batch.image_sizes)
        mean, std = model.pixel_mean, model.pixel_std
        images = [one["image"].to(mean.device) for one in batched_inputs]
        if any(image.ndim != 3 for image in images):
            raise ValueError("an image has other dimensions than channels, height and width")
        sizes = tuple((image.shape[-2], image.shape[-1]) for image in images)
        backbone = model.backbone
        constraints = getattr(backbone, "padding_constraints", None)
        height, width = padded_sides(sizes, backbone.size_divisibility, constraints)
        return normalized_batch(images, mean, std, int(height), int(width)), sizes


def _has_own_preprocessing(model: Any) -> bool:
    """Return whether images must go through the model's `preprocess_image`."""
    known = {cls.preprocess_image for cls in vars(meta_arch).values() if _preprocesses(cls)}
    # Without this method, the images are preprocessed in `forward`, in the same way.
    is_known = getattr(type(model), "preprocess_image", None) in {None, *known}
    return not is_known or "preprocess_image" in vars(model) or model.pixel_mean.numel() != 3


def _preprocesses(cls: Any) -> bool:
    return isinstance(cls, type) and hasattr(cls, "preprocess_image")


def core_shapes(inputs: tuple[Tensor, ...], most_images: int, backbone: Any, coarsest: int) -> Any:
    """Return the dynamic sizes of a core's inputs, the images first.

    Args:
        backbone: its padding decides whether sides vary, and in which steps.
        coarsest: the largest stride of the pyramid's levels.

    Raises:
        CaptureError: the example is too small for that.
    """
    constraints = getattr(backbone, "padding_constraints", None) or {}
    if constraints.get("square_size", 0):
        return varying_batch(inputs, most_images)
    step = max(constraints.get("size_divisibility", backbone.size_divisibility), 1)
    return varying_sides(inputs, most_images, step, coarsest, _LONGEST)


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
