"""Give torchvision's two-stage detectors a core of fixed shapes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from ..core_batch import Core
from ..host_steps import keeps_methods
from ..ops.keypoints_of_heatmaps import keypoints_of_heatmaps
from ..ops.place_detections import place_detections
from .anchors import cell_anchors_of
from .pyramid import Shapes, features_of, level_shapes
from .region_heads import detections_of, masks_of, poolers_of, proposals_of, why_no_heads
from .steps import Steps, why_no_float32

__all__ = ["rcnn_steps"]

_SIDE = 512
"""The side of the images that tell the strides of levels, in pixels."""


class _Core(Core):
    """The networks of a `GeneralizedRCNN` with operators of fixed shape between them."""

    def __init__(self, model: Any, shapes: Shapes) -> None:
        super().__init__(model)
        device = next(model.parameters()).device
        self.cell_anchors = cell_anchors_of(model.rpn.anchor_generator, device)
        self.poolers = poolers_of(model.roi_heads, shapes, _SIDE)

    def forward(
        self, images: Tensor, image_sizes: Tensor, scales: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        """Return padded detections; see `Steps`."""
        heads: Any = self.roi_heads
        features = features_of(self.backbone, images)
        boxes, counts = proposals_of(
            self.rpn, list(features.values()), images, image_sizes, self.cell_anchors
        )
        pooled = self.poolers["box"](features, boxes, counts)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        found = detections_of(heads, logits, deltas, boxes, counts, image_sizes)
        placed, summary = place_detections(
            found.boxes, found.counts, found.overflow, scales, limits
        )
        outputs: tuple[Tensor, ...] = (summary, placed, found.classes, found.scores)
        if "mask" in self.poolers:
            pooled = self.poolers["mask"](features, found.boxes, found.counts)
            outputs += (masks_of(heads, pooled, found.classes),)
        if "keypoint" in self.poolers:
            pooled = self.poolers["keypoint"](features, found.boxes, found.counts)
            maps = heads.keypoint_predictor(heads.keypoint_head(pooled))
            points = keypoints_of_heatmaps(maps, found.boxes.flatten(0, 1))
            outputs += (points.unflatten(0, found.classes.shape),)
        return outputs


_NAMES = {"box": ("boxes", "labels", "scores"), "mask": ("masks",), "keypoint": ("keypoints",)}
"""The names of results by the kind of pooler, in torchvision's order."""


def rcnn_steps(model: Any) -> Steps | str:
    """Return the core of a `GeneralizedRCNN` and its steps, or why it can have none."""
    if not keeps_methods(model, GeneralizedRCNN, "forward", "eager_outputs"):
        return f"{type(model).__name__} has a forward of its own"
    if reason := why_no_float32(model):
        return reason
    shapes = level_shapes(model.backbone, _SIDE, _SIDE)
    if isinstance(shapes, str):
        return shapes
    if reason := why_no_heads(model.rpn, model.roi_heads, shapes):
        return reason
    core = _Core(model, shapes)
    coarsest = max(_SIDE // min(shape) for shape in shapes.values())
    return Steps(model, core, coarsest, [name for kind in core.poolers for name in _NAMES[kind]])
