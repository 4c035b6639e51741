"""Run the RPN of Detectron2 up to padded proposals, for a core of fixed shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.rpn import RPN
from torch import Tensor

from ..box_coding import SCALE_CLAMP
from ..host_steps import unchanged
from ..ops.rpn_proposals import rpn_proposals
from .proposals import IS_0_4

__all__ = [
    "Regions",
    "is_known_transform",
    "padded_proposals",
    "why_no_boxes",
    "why_no_proposals",
]

_LIBRARY = "detectron2_0.4" if IS_0_4 else "detectron2"


class Regions(NamedTuple):
    """Padded boxes of each image.

    boxes:       (B, R, 4).
    counts:      (B,), int32: the rows that are no padding.
    image_sizes: (B, 2), heights and widths.
    """

    boxes: Tensor
    counts: Tensor
    image_sizes: Tensor


def padded_proposals(
    rpn: Any, features: Mapping[str, Tensor], image_sizes: Tensor
) -> tuple[Regions, Tensor]:
    """Return the proposals of an RPN that `why_no_proposals` has accepted, and their logits.

    Args:
        features: (B, C, h, w) by name.
        image_sizes: (B, 2), heights and widths.

    Returns:
        The proposals, and (B, R) logits.
    """
    logits, deltas = rpn.rpn_head([features[name] for name in rpn.in_features])
    generator = rpn.anchor_generator
    boxes, scores, counts = rpn_proposals(
        list(logits),
        list(deltas),
        list(generator.cell_anchors),
        image_sizes,
        [stride for stride in generator.strides for _ in range(2)],
        float(generator.offset),
        list(map(float, rpn.box2box_transform.weights)),
        rpn.nms_thresh,
        rpn.pre_nms_topk[False],
        rpn.post_nms_topk[False],
        rpn.min_box_size,
        0.0,
        _LIBRARY,
    )
    return Regions(boxes, counts, image_sizes), scores


def why_no_proposals(rpn: Any) -> str | None:
    """Return why an RPN cannot be part of a core, or None."""
    if not unchanged(rpn, RPN, "forward", "predict_proposals", "_decode_proposals"):
        return f"{type(rpn).__name__} has a forward or hooks of its own"
    return why_no_boxes(rpn.anchor_generator, rpn.box2box_transform, is_known_transform)


def why_no_boxes(generator: Any, transform: Any, is_known: Callable[[Any], bool]) -> str | None:
    """Return why a core cannot compute boxes from anchors itself, or None.

    Args:
        is_known: whether the core decodes boxes as a transform does.
    """
    if not unchanged(generator, DefaultAnchorGenerator, "forward", "_grid_anchors"):
        return f"{type(generator).__name__} makes anchors in a way of its own"
    if not is_known(transform):
        return f"{type(transform).__name__} decodes boxes in a way of its own"
    return None


def is_known_transform(transform: Any) -> bool:
    """Return whether boxes are decoded as in Detectron2, with its usual limit of sides."""
    own = unchanged(transform, Box2BoxTransform, "apply_deltas")
    return own and math.isclose(transform.scale_clamp, SCALE_CLAMP)
