"""Give Detectron2's one-stage detectors a core of fixed shapes, and the steps around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from detectron2.modeling.meta_arch.retinanet import RetinaNet
from torch import Tensor

from ..core_batch import DENSE_CANDIDATES, Core
from ..host_steps import keeps_methods, unchanged
from ..ops.dense_detections import dense_detections
from ..ops.place_detections import place_detections
from .padded_proposals import is_known_transform, why_no_boxes
from .proposals import IS_0_4
from .results import ResultRules
from .steps import Steps

__all__ = ["one_stage_steps"]

_COARSEST = 128
"""The largest stride of the levels."""


class _Core(Core):
    """The networks of a one-stage detector, and the selection of its detections."""

    backbone: Any
    head: Any

    def __init__(self, model: Any, head: str) -> None:
        super().__init__(model)
        transform = model.box2box_transform
        self._names = list(model.head_in_features)
        self._rules = (
            [float(weight) for weight in getattr(transform, "weights", (1.0,) * 4)],
            model.test_score_thresh,
            model.test_nms_thresh,
            model.test_topk_candidates,
            model.max_detections_per_image,
            DENSE_CANDIDATES,
            "detectron2_0.4" if IS_0_4 else "detectron2",
            head,
        )

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
            `place_detections`.
        """
        features = self.backbone(images)
        logits, deltas, *centerness = self.head([features[name] for name in self._names])
        generator: Any = self.anchor_generator
        boxes, scores, classes, counts, overflow = dense_detections(
            list(logits),
            list(deltas),
            list(centerness[0]) if centerness else [],
            list(generator.cell_anchors),
            image_sizes,
            [stride for stride in generator.strides for _ in range(2)],
            float(generator.offset),
            *self._rules,
        )
        placed, summary = place_detections(boxes, counts, overflow, scales, limits)
        return placed, scores, classes, summary


_METHODS_OF_0_4 = ("forward", "inference", "inference_single_image")
_METHODS = (
    *("forward", "forward_inference", "inference_single_image"),
    *("_decode_multi_level_predictions", "_decode_per_level_predictions"),
    "_transpose_dense_predictions",
)


def _steps(model: Any, head: str) -> Steps:
    return Steps(model, _Core(model, head), partial(ResultRules, "instances"), _COARSEST)


def _retinanet_steps(model: Any) -> Steps | str:
    """Return the core of a `RetinaNet` and its steps, or why it can have none."""
    return _why_none(model, RetinaNet, is_known_transform) or _steps(model, "retinanet")


def _fcos_steps(model: Any) -> Steps | str:
    """Return the core of an `FCOS` and its steps, or why it can have none."""
    # Detectron2 0.4 has neither of the two.
    from detectron2.modeling.box_regression import Box2BoxTransformLinear
    from detectron2.modeling.meta_arch.fcos import FCOS

    is_known = partial(_is_linear, Box2BoxTransformLinear)
    return _why_none(model, FCOS, is_known) or _steps(model, "fcos")


def _is_linear(kind: type[Any], transform: Any) -> bool:
    return unchanged(transform, kind, "apply_deltas") and transform.normalize_by_size


def _why_none(model: Any, kind: type[Any], is_known: Callable[[Any], bool]) -> str | None:
    if not keeps_methods(model, kind, *(_METHODS_OF_0_4 if IS_0_4 else _METHODS)):
        return f"{type(model).__name__} has an inference of its own"
    return why_no_boxes(model.anchor_generator, model.box2box_transform, is_known)


def one_stage_steps(model: Any) -> Steps | str:
    """Return the core of one of Detectron2's `DenseDetector`s, or why it can have none."""
    return _retinanet_steps(model) if isinstance(model, RetinaNet) else _fcos_steps(model)
