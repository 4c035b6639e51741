"""The steps around the core of any of torchvision's detectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..box_coding import SCALE_CLAMP
from ..core_batch import core_example
from ..host_steps import Prepared, unchanged
from ..small_tables import SmallTables
from .answers import found_in, place
from .image_batch import core_shapes, read_images, rules_of
from .pictures import ImageBatch
from .steps_data import StepsData

__all__ = ["Steps", "is_known_coder", "why_no_float32"]


class Steps:
    """See `HostSteps`.

    A core takes the inputs of `ImageBatch`. It returns the summary of `place_detections`, and then
    one tensor (B, D, ...) for each of `names`: boxes in pixels of the pictures, labels, scores,
    masks as large as the head makes them, and keypoints as `keypoints_of_heatmaps` has them.
    """

    def __init__(
        self, model: Any, core: torch.nn.Module, coarsest: int, names: Sequence[str]
    ) -> None:
        """Make the steps around `core`.

        Args:
            coarsest: the largest stride of the levels.
            names: what the detector calls its results, in its own order.
        """
        self.core = core
        self._transform = model.transform
        self._coarsest = coarsest
        self._tables = SmallTables()
        self._names = names
        self._places_boxes = unchanged(model.transform, GeneralizedRCNNTransform, "postprocess")

    def before(self, images: Iterable[Tensor], targets: Any = None) -> Prepared:
        if targets is not None:
            raise ValueError("targets are for training")
        batch = read_images(self._transform, images, self._tables, places_boxes=self._places_boxes)
        return Prepared(batch.inputs, batch)

    def after(self, outputs: Sequence[Tensor], context: ImageBatch) -> list[dict[str, Tensor]]:
        found = found_in(self._names, outputs)
        if not self._places_boxes:
            placed = self._transform.postprocess(found, context.resized, context.pictures)
            return placed  # type: ignore[no-any-return]  # the user's own
        place(found, context)
        return found

    def as_data(self) -> StepsData | str:
        """Return the same steps as data, or why they need the model."""
        if not self._places_boxes:
            return f"{type(self._transform).__name__} has a postprocess of its own"
        rules = rules_of(self._transform)
        if isinstance(rules, str):
            return rules
        return StepsData("torchvision", rules, tuple(self._names))

    example = staticmethod(core_example)

    def dynamic_shapes(self, inputs: tuple[Tensor, ...], most_images: int) -> Any:
        return core_shapes(inputs, most_images, self._transform, self._coarsest)


def is_known_coder(coder: Any) -> bool:
    """Return whether boxes are decoded as in torchvision, with its usual limit of sides."""
    own = unchanged(coder, BoxCoder, "decode", "decode_single")
    return own and coder.bbox_xform_clip == SCALE_CLAMP


def why_no_float32(model: torch.nn.Module) -> str | None:
    """Return why a model computes in another precision than a core's operators, or None."""
    dtypes = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    others = dtypes - {torch.float32}
    return f"its weights are {min(map(str, others))}, and boxes are float32" if others else None
