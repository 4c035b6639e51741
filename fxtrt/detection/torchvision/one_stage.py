"""Give torchvision's one-stage detectors a core of fixed shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import fcos, retinanet, ssd
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from ..core_batch import DENSE_CANDIDATES, Core
from ..host_steps import keeps_methods, unchanged
from ..ops.dense_detections import dense_detections
from ..ops.place_detections import place_detections
from .anchors import cell_anchors_of, strides_of, why_no_anchors
from .pyramid import Shapes, features_of, level_shapes
from .steps import Steps, is_known_coder, why_no_float32

__all__ = ["fcos_steps", "retinanet_steps", "ssd_steps"]

_SSD_CANDIDATES = 4096
"""The most boxes of an image that SSD suppresses; its limits for each class admit many more."""
_SIDE = 1024
"""The side of the images that tell the strides of levels, in pixels."""

_NAMES = ("boxes", "scores", "labels")

Maps = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""A head's logits, deltas and centerness of each level, (B, C, h, w)."""


class _Core(Core):
    """The networks of a one-stage detector with an operator of fixed shape after them."""

    def __init__(self, model: Any, family: _Family, anchors: Sequence[Tensor]) -> None:
        """Take over what `model` does.

        Args:
            anchors: the cell anchors of each level; for SSD all its default boxes.
        """
        super().__init__(model)
        self.anchors = list(anchors)
        self._maps_of = family.maps_of
        coder = model.box_coder
        weights = getattr(coder, "weights", (1.0,) * 4)  # A `BoxLinearCoder` has none.
        self._rules = (
            list(map(float, weights)),
            model.score_thresh,
            model.nms_thresh,
            model.topk_candidates,
            model.detections_per_img,
            _SSD_CANDIDATES if family is _SSD else DENSE_CANDIDATES,
            "torchvision",
            family.name,
        )

    def forward(
        self, images: Tensor, image_sizes: Tensor, scales: Tensor, limits: Tensor
    ) -> tuple[Tensor, ...]:
        """Return padded detections; see `Steps`."""
        features = list(features_of(self.backbone, images).values())
        logits, deltas, centerness = self._maps_of(self.head, features)
        boxes, scores, labels, counts, overflow = dense_detections(
            logits,
            deltas,
            centerness,
            self.anchors,
            image_sizes,
            strides_of(features, images),
            0.0,
            *self._rules,
        )
        placed, summary = place_detections(boxes, counts, overflow, scales, limits)
        return summary, placed, scores, labels


def _maps_of_retinanet(head: Any, features: Sequence[Tensor]) -> Maps:
    """Return the maps that `RetinaNetHead` flattens and joins."""
    classes, boxes = head.classification_head, head.regression_head
    logits = [classes.cls_logits(classes.conv(level)) for level in features]
    return logits, [boxes.bbox_reg(boxes.conv(level)) for level in features], []


def _maps_of_fcos(head: Any, features: Sequence[Tensor]) -> Maps:
    """Return the maps that `FCOSHead` flattens and joins."""
    classes, boxes = head.classification_head, head.regression_head
    logits = [classes.cls_logits(classes.conv(level)) for level in features]
    towers = [boxes.conv(level) for level in features]
    distances = [boxes.bbox_reg(tower).relu() for tower in towers]
    return logits, distances, [boxes.bbox_ctrness(tower) for tower in towers]


def _maps_of_ssd(head: Any, features: Sequence[Tensor]) -> Maps:
    """Return the maps that the heads of SSD and SSDlite flatten and join."""
    logits, deltas = (
        [module(level) for module, level in zip(part.module_list, features, strict=True)]
        for part in (head.classification_head, head.regression_head)
    )
    return logits, deltas, []


@dataclass(frozen=True)
class _Family:
    """The pieces in which one-stage detectors differ.

    kind:    the class of the model.
    heads:   the classes of the pieces of its head, by their path in the model.
    maps_of: runs the networks of the head.
    """

    name: str
    kind: type[Any]
    heads: dict[str, type[Any]]
    maps_of: Callable[[Any, Sequence[Tensor]], Maps]


_RETINANET = _Family(
    "retinanet",
    retinanet.RetinaNet,
    {
        "head": retinanet.RetinaNetHead,
        "head.classification_head": retinanet.RetinaNetClassificationHead,
        "head.regression_head": retinanet.RetinaNetRegressionHead,
    },
    _maps_of_retinanet,
)
_FCOS = _Family(
    "fcos",
    fcos.FCOS,
    {
        "head": fcos.FCOSHead,
        "head.classification_head": fcos.FCOSClassificationHead,
        "head.regression_head": fcos.FCOSRegressionHead,
    },
    _maps_of_fcos,
)
_SSD = _Family(
    "ssd",
    ssd.SSD,
    {
        "head.classification_head": ssd.SSDScoringHead,
        "head.regression_head": ssd.SSDScoringHead,
    },
    _maps_of_ssd,
)


def retinanet_steps(model: Any) -> Steps | str:
    """Return the core of a `RetinaNet` and its steps, or why it can have none."""
    known_coder = is_known_coder(model.box_coder)
    return _steps_of_any_size(model, _RETINANET, known_coder)


def fcos_steps(model: Any) -> Steps | str:
    """Return the core of an `FCOS` and its steps, or why it can have none."""
    coder = model.box_coder
    known_coder = unchanged(coder, BoxLinearCoder, "decode") and coder.normalize_by_size
    return _steps_of_any_size(model, _FCOS, known_coder)


def ssd_steps(model: Any) -> Steps | str:
    """Return the core of an `SSD` and its steps, or why it can have none.

    All its images have one size, so its default boxes are constants.
    """
    if reason := _why_no_core(model, _SSD, is_known_coder(model.box_coder)):
        return reason
    generator = model.anchor_generator
    if not unchanged(generator, DefaultBoxGenerator, "forward", "_grid_default_boxes"):
        return f"{type(generator).__name__} makes default boxes in a way of its own"
    if model.transform.fixed_size is None:
        return "its images have no fixed size"
    width, height = model.transform.fixed_size
    shapes = level_shapes(model.backbone, height, width)
    if isinstance(shapes, str):
        return shapes
    if (
        not len(shapes)
        == len(generator.aspect_ratios)
        == len(model.head.regression_head.module_list)
    ):
        return f"it has {len(shapes)} levels, and others in its head or default boxes"
    boxes = _default_boxes(generator, height, width, shapes, next(model.parameters()).device)
    return Steps(model, _Core(model, _SSD, boxes), 1, _NAMES)


def _default_boxes(
    generator: Any, height: int, width: int, shapes: Shapes, device: torch.device
) -> Sequence[Tensor]:
    """Return the default boxes of each level, (h * w * A, 4)."""
    images = ImageList(torch.empty(1, 3, height, width), [(height, width)])
    (boxes,) = generator(images, [torch.empty(1, 1, *shape) for shape in shapes.values()])
    per_cell = generator.num_anchors_per_location()
    counts = [math.prod(shape) * n for shape, n in zip(shapes.values(), per_cell, strict=True)]
    return [level.clone() for level in boxes.to(device).split(counts)]


def _steps_of_any_size(model: Any, family: _Family, known_coder: bool) -> Steps | str:
    if reason := _why_no_core(model, family, known_coder):
        return reason
    shapes = level_shapes(model.backbone, _SIDE, _SIDE)
    if isinstance(shapes, str):
        return shapes
    if reason := why_no_anchors(model.anchor_generator, len(shapes)):
        return reason
    anchors = cell_anchors_of(model.anchor_generator, next(model.parameters()).device)
    coarsest = max(_SIDE // min(shape) for shape in shapes.values())
    return Steps(model, _Core(model, family, anchors), coarsest, _NAMES)


def _why_no_core(model: Any, family: _Family, known_coder: bool) -> str | None:
    """Return why a model of the family can have no core, or None.

    A core runs the networks itself, so what lies between these must be torchvision's own.
    """
    if not keeps_methods(model, family.kind, "forward", "postprocess_detections", "eager_outputs"):
        return f"{type(model).__name__} has steps of its own"
    if not known_coder:
        return f"{type(model.box_coder).__name__} decodes boxes in a way of its own"
    for path, kind in family.heads.items():
        head = model.get_submodule(path)
        if not unchanged(head, kind, "forward"):
            return f"{type(head).__name__} has a forward of its own"
    return why_no_float32(model)
