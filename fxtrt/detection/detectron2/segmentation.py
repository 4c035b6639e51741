"""Give Detectron2's semantic and panoptic segmentors a core, and the steps around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.modeling.meta_arch import panoptic_fpn
from detectron2.modeling.meta_arch.panoptic_fpn import PanopticFPN
from detectron2.modeling.meta_arch.semantic_seg import SemanticSegmentor
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import Tensor

from ..core_batch import Core
from ..host_steps import Prepared, keeps_methods
from .image_batch import ImageBatch
from .rcnn import RCNNCore, RCNNSteps, why_no_rcnn
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


class _PanopticSteps(RCNNSteps):
    """The steps around the core of a `PanopticFPN`; see `HostSteps`."""

    def after(self, outputs: Sequence[Tensor], context: ImageBatch) -> list[dict[str, Any]]:
        *detections, logits = outputs
        results = super().after(detections, context)
        for result, of_image, size, picture in zip(
            results, logits, context.sizes, context.pictures, strict=True
        ):
            instances = result.pop("instances")
            classes = sem_seg_postprocess(of_image, size, *picture)
            result |= {"sem_seg": classes, "instances": instances}
            result["panoptic_seg"] = panoptic_fpn.combine_semantic_and_instance_outputs(
                instances,
                classes.argmax(dim=0),
                self.model.combine_overlap_thresh,
                self.model.combine_stuff_area_thresh,
                self.model.combine_instances_score_thresh,
            )
        return results


class _SemanticCore(Core):
    """The networks of a `SemanticSegmentor`."""

    backbone: Any
    sem_seg_head: Any

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return (B, classes, H, W) logits for (B, 3, H, W) normalized, zero padded images."""
        logits, _ = self.sem_seg_head(self.backbone(images), None)
        return (logits,)


class _SemanticSteps(Steps):
    """The steps around the core of a `SemanticSegmentor`; see `HostSteps`."""

    def before(self, batched_inputs: Any) -> Prepared:
        call = super().before(batched_inputs)
        return Prepared(call.inputs[:1], call.context)

    def after(self, outputs: Sequence[Tensor], context: ImageBatch) -> list[dict[str, Any]]:
        images = zip(outputs[0], context.sizes, context.pictures, strict=True)
        return [
            {"sem_seg": sem_seg_postprocess(of_image, size, *picture)}
            for of_image, size, picture in images
        ]


def panoptic_steps(model: Any) -> _PanopticSteps | str:
    """Return the core of a `PanopticFPN` and its steps, or why it can have none."""
    if not keeps_methods(model, PanopticFPN, "forward", "inference"):
        return f"{type(model).__name__} has an inference of its own"
    if not getattr(model, "combine_on", True):
        return "it does not combine its results"
    return why_no_rcnn(model) or _PanopticSteps(model, _PanopticCore(model))


def semantic_steps(model: Any) -> _SemanticSteps | str:
    """Return the core of a `SemanticSegmentor` and its steps, or why it can have none."""
    if not keeps_methods(model, SemanticSegmentor, "forward"):
        return f"{type(model).__name__} has a forward of its own"
    return _SemanticSteps(model, _SemanticCore(model))
