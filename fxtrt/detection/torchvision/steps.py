"""The steps around the core of any of torchvision's detectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..box_coding import SCALE_CLAMP
from ..core_batch import core_example, counted
from ..host_steps import Prepared, unchanged
from ..ops.paste_masks_in_image import paste_masks_in_image
from ..small_tables import SmallTables
from .image_batch import ImageBatch, core_shapes, read_images

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
        summary, *padded = outputs
        rows = counted(summary)
        named = dict(zip(self._names, padded, strict=True))
        found = [
            {name: output[image, : row[0]] for name, output in named.items()}
            for image, row in enumerate(rows)
        ]
        for one in found:
            if "keypoints" in one:
                _split_keypoints(one)
        if not self._places_boxes:
            placed = self._transform.postprocess(found, context.resized, context.pictures)
            return placed  # type: ignore[no-any-return]  # the user's own
        for image, one in enumerate(found):
            _place(one, context.pictures[image], context.scales[image])
        return found

    example = staticmethod(core_example)

    def dynamic_shapes(self, inputs: tuple[Tensor, ...], most_images: int) -> Any:
        return core_shapes(inputs, most_images, self._transform, self._coarsest)


def _split_keypoints(one: dict[str, Tensor]) -> None:
    """Give keypoints a visibility of 1 and their scores a name, as torchvision does."""
    points = one["keypoints"]
    one["keypoints"] = torch.cat([points[..., :2], torch.ones_like(points[..., :1])], -1)
    one["keypoints_scores"] = points[..., 2]


def _place(one: dict[str, Tensor], picture: tuple[int, int], scales: tuple[float, float]) -> None:
    """Do the rest of `GeneralizedRCNNTransform.postprocess`, after the boxes, in place."""
    if "masks" in one:
        one["masks"] = paste_masks_in_image(one["masks"], one["boxes"], list(picture))
    if "keypoints" in one:
        one["keypoints"][..., 0] *= scales[0]
        one["keypoints"][..., 1] *= scales[1]


def is_known_coder(coder: Any) -> bool:
    """Return whether boxes are decoded as in torchvision, with its usual limit of sides."""
    own = unchanged(coder, BoxCoder, "decode", "decode_single")
    return own and coder.bbox_xform_clip == SCALE_CLAMP


def why_no_float32(model: torch.nn.Module) -> str | None:
    """Return why a model computes in another precision than a core's operators, or None."""
    dtypes = {weight.dtype for weight in model.parameters() if weight.is_floating_point()}
    others = dtypes - {torch.float32}
    return f"its weights are {min(map(str, others))}, and boxes are float32" if others else None
