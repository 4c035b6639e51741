"""Give Detectron2's two-stage detectors a core of fixed shapes, and the steps around it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from detectron2.modeling.meta_arch.rcnn import GeneralizedRCNN
from torch import Tensor

from ..core_batch import Core
from ..host_steps import keeps_methods
from ..ops.keypoints_of_heatmaps import keypoints_of_heatmaps
from ..ops.place_detections import place_detections
from .padded_proposals import padded_proposals, why_no_proposals
from .region_heads import keypoint_maps_of, masks_of, why_no_core, with_heads
from .results import ResultRules
from .steps import Steps

__all__ = ["RCNNCore", "instance_rules", "rcnn_steps", "why_no_rcnn"]


class RCNNCore(Core):
    """The networks of a `GeneralizedRCNN` with operators of fixed shape between them."""

    backbone: Any

    def forward(
        self, images: Tensor, image_sizes: Tensor, scales: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        """Return padded detections in the pictures' own pixels.

        Args:
            images: (B, 3, H, W), normalized, zero padded.
            image_sizes: (B, 2), heights and widths without the padding.
            scales, limits: (B, 4), what boxes are multiplied with and then clipped at.

        Returns:
            (B, D, 4) boxes, (B, D) scores and classes, (B, 2 + D) int32, the summary of
            `place_detections`; then masks and keypoints with their heat maps, where there are any.
        """
        features = self.backbone(images)
        return self.detections(features, image_sizes, scales, limits)

    def detections(
        self, features: Mapping[str, Tensor], image_sizes: Tensor, scales: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        """Return what `forward` does, from the features of the backbone."""
        regions, _ = padded_proposals(self.proposal_generator, features, image_sizes)
        heads: Any = self.roi_heads
        found = with_heads(heads, features, regions)
        boxes, summary = place_detections(found.boxes, found.counts, found.overflow, scales, limits)
        outputs: tuple[Tensor, ...] = (boxes, found.scores, found.classes, summary)
        if getattr(heads, "mask_on", False):
            outputs += (masks_of(heads, features, found, image_sizes),)
        if getattr(heads, "keypoint_on", False):
            maps: Any = keypoint_maps_of(heads, features, found, image_sizes)
            keypoints = keypoints_of_heatmaps(maps, found.boxes.flatten(0, 1))
            shape = found.classes.shape
            outputs += (keypoints.unflatten(0, shape), maps.unflatten(0, shape))
        return outputs


def instance_rules(model: Any) -> ResultRules:
    """Return what a `GeneralizedRCNN` returns."""
    heads = model.roi_heads
    masks, keypoints = (getattr(heads, f"{name}_on", False) for name in ("mask", "keypoint"))
    return ResultRules("instances", bool(masks), bool(keypoints))


def rcnn_steps(model: Any) -> Steps | str:
    """Return the core of a `GeneralizedRCNN` and its steps, or why it can have none."""
    if not keeps_methods(model, GeneralizedRCNN, "forward", "inference", "_postprocess"):
        return f"{type(model).__name__} has an inference of its own"
    rules = partial(instance_rules, model)
    return why_no_rcnn(model) or Steps(model, RCNNCore(model), rules)


def why_no_rcnn(model: Any) -> str | None:
    """Return why the proposals or the RoI heads of a model cannot be part of a core, or None."""
    if model.proposal_generator is None:
        return "its proposals come with the images"
    return why_no_proposals(model.proposal_generator) or why_no_core(model.roi_heads)
