"""Give Detectron2's semantic and panoptic segmentors a core, and the steps around it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SemanticSegmentor
from torch import Tensor

from ..core_batch import Core
from ..host_steps import keeps_methods
from .panoptic_segments import Thresholds
from .rcnn import RCNNCore, instance_rules, why_no_rcnn
from .results import ResultRules
from .steps import Steps

__all__ = ["panoptic_steps", "semantic_steps"]


class _PanopticCore(RCNNCore):
    """Adds (B, classes, H, W) logits of each pixel's class to what `RCNNCore` returns."""

    sem_seg_head: Any

    def forward(
        self, images: Tensor, image_sizes: Tensor, scales: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        features = self.backbone(images)
        logits, _ = self.sem_seg_head(features, None)
        return (*self.detections(features, image_sizes, scales, limits), logits)


class _SemanticCore(Core):
    """The networks of a `SemanticSegmentor`."""

    backbone: Any
    sem_seg_head: Any

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return (B, classes, H, W) logits for (B, 3, H, W) normalized, zero padded images."""
        logits, _ = self.sem_seg_head(self.backbone(images), None)
        return (logits,)


def _panoptic_rules(model: Any) -> ResultRules:
    limits = Thresholds(
        float(model.combine_overlap_thresh),
        float(model.combine_stuff_area_thresh),
        float(model.combine_instances_score_thresh),
    )
    return replace(instance_rules(model), kind="panoptic", combine=limits)


def panoptic_steps(model: Any) -> Steps | str:
    """Return the core of a `PanopticFPN` and its steps, or why it can have none."""
    if not keeps_methods(model, PanopticFPN, "forward", "inference"):
        return f"{type(model).__name__} has an inference of its own"
    if not getattr(model, "combine_on", True):
        return "it does not combine its results"
    rules = partial(_panoptic_rules, model)
    return why_no_rcnn(model) or Steps(model, _PanopticCore(model), rules)


def semantic_steps(model: Any) -> Steps | str:
    """Return the core of a `SemanticSegmentor` and its steps, or why it can have none."""
    if not keeps_methods(model, SemanticSegmentor, "forward"):
        return f"{type(model).__name__} has a forward of its own"
    return Steps(model, _SemanticCore(model), partial(ResultRules, "semantic"))
