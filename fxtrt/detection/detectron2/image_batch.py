"""Turn the input dicts of Detectron2's models into a padded batch and a table of sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.modeling import meta_arch
from torch import Tensor

from ..core_batch import varying_batch, varying_sides
from ..small_tables import SmallTables
from .input_dicts import ImageBatch, normalized, with_tables

__all__ = ["ImageReader", "core_shapes"]

_LONGEST = 1344
"""The longest side of the model zoo's images, 1333, padded."""


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
        return with_tables(images, sizes, batched_inputs, self._tables)

    def as_data(self) -> tuple[list[float], list[float], int, int] | str:
        """Return mean, deviation, divisibility and square size, or why they are not all."""
        model = self._model
        if self._is_own:
            return f"{type(model).__name__} preprocesses images in a way of its own"
        constraints = getattr(model.backbone, "padding_constraints", None) or {}
        step = int(constraints.get("size_divisibility", model.backbone.size_divisibility))
        mean, std = (values.flatten().tolist() for values in (model.pixel_mean, model.pixel_std))
        return mean, std, max(step, 1), int(constraints.get("square_size", 0))

    def _preprocessed(
        self, batched_inputs: Sequence[dict[str, Any]]
    ) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """Return normalized, padded images, and their heights and widths without the padding."""
        model = self._model
        if self._is_own:
            batch = model.preprocess_image(batched_inputs)
            return batch.tensor, tuple((int(h), int(w)) for h, w in batch.image_sizes)
        images = [one["image"] for one in batched_inputs]
        backbone = model.backbone
        constraints = getattr(backbone, "padding_constraints", None)
        moments = (model.pixel_mean, model.pixel_std)
        return normalized(images, *moments, backbone.size_divisibility, constraints)


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
