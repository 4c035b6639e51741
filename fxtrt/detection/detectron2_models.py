"""The plans of Detectron2's detectors, and the equivalents that they share.

Importing this module lets pytrees open Detectron2's `Instances` and `Boxes`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor
from torch.export import Dim
from torch.utils import _pytree as pytree

from ..shapes import is_static
from .detectron2_operators import batched_nms
from .lengths import rows
from .plans import ComponentPlan, register

__all__ = ["GENERALIZED_RCNN"]


def find_top_rpn_proposals(
    proposals: Sequence[Tensor],
    pred_objectness_logits: Sequence[Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Any]:
    """Detectron2's function of this name, for inference: it always filters, not only if it must.

    Args:
        proposals: of each level, (images, boxes, 4).
        pred_objectness_logits: of each level, (images, boxes).

    Returns:
        Of each image, its `Instances`, by falling score.
    """
    scores, boxes, levels = [], [], []
    for level, (boxes_of_level, logits) in enumerate(
        zip(proposals, pred_objectness_logits, strict=True)
    ):
        count = torch.sym_min(logits.shape[1], pre_nms_topk)
        ordered, order = logits.sort(descending=True, dim=1)
        best = order.narrow(1, 0, count)
        images = torch.arange(len(image_sizes), device=logits.device)[:, None]
        scores.append(ordered.narrow(1, 0, count))
        boxes.append(boxes_of_level[images, best])
        levels.append(torch.full((count,), level, dtype=torch.int64, device=logits.device))
    limits = (nms_thresh, post_nms_topk, min_box_size)
    by_image = zip(torch.cat(boxes, 1), torch.cat(scores, 1), image_sizes, strict=True)
    return [
        _proposals_of_image(its_boxes, its_scores, torch.cat(levels), size, *limits)
        for its_boxes, its_scores, size in by_image
    ]


def _proposals_of_image(
    boxes: Tensor,
    scores: Tensor,
    levels: Tensor,
    size: tuple[int, int],
    nms_thresh: float,
    most: int,
    min_box_size: float,
) -> Any:
    finite = boxes.isfinite().all(dim=1) & scores.isfinite()
    boxes, scores, levels = _rows_where(finite, boxes, scores, levels)
    boxes = _clipped(boxes, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes, scores, levels = _rows_where((sides > min_box_size).all(dim=1), boxes, scores, levels)
    kept = batched_nms(boxes, scores, levels, nms_thresh)[:most]
    result = Instances(size)
    result.proposal_boxes = Boxes(boxes[kept])
    result.objectness_logits = scores[kept]
    return result


def fast_rcnn_inference_single_image(
    boxes: Tensor,
    scores: Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Any, Tensor]:
    """Detectron2's function of this name: it always filters, not only if it must.

    Args:
        boxes: (R, 4 * classes) or (R, 4); scores: (R, classes + 1).

    Returns:
        The image's `Instances`, and which of the R rows they come from.
    """
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    boxes, scores = _rows_where(finite, boxes, scores)
    scores = scores[:, :-1]
    classes = boxes.shape[1] // 4
    by_class = _clipped(boxes.reshape(-1, 4), image_shape).view(-1, classes, 4)
    found = (scores > score_thresh).nonzero()
    row, label = found[:, 0], found[:, 1]
    boxes = by_class[row, 0] if classes == 1 else by_class[row, label]
    scores = scores[row, label]
    kept = batched_nms(boxes, scores, label, nms_thresh)
    if topk_per_image >= 0:
        kept = kept[:topk_per_image]
    result = Instances(image_shape)
    result.pred_boxes = Boxes(boxes[kept])
    result.scores = scores[kept]
    result.pred_classes = label[kept]
    return result, row[kept]


def _rows_where(mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    index = mask.nonzero()[:, 0]
    return [tensor[index] for tensor in tensors]


def _clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    limits = (width, height, width, height)
    return torch.stack([boxes[:, i].clamp(min=0, max=limits[i]) for i in range(4)], dim=-1)


def new_boxes(self: Any, tensor: Any) -> None:
    """`Boxes.__init__`, which asks whether there is any box, since none may have any shape."""
    tensor = torch.as_tensor(tensor, dtype=torch.float32)
    none = is_static(tensor.numel()) and tensor.numel() == 0
    self.tensor = tensor.reshape(-1, 4) if none else tensor


def clip(self: Any, box_size: tuple[int, int]) -> None:
    """`Boxes.clip`, which first insists on finite coordinates."""
    self.tensor = _clipped(self.tensor, box_size)


def set_field(self: Any, name: str, value: Any) -> None:
    """`Instances.set`, which insists on fields of one length."""
    self._fields[name] = value


def from_tensors(
    tensors: Sequence[Tensor], size_divisibility: int = 0, pad_value: float = 0.0
) -> Any:
    """`ImageList.from_tensors`, which computes the padding with tensors.

    Args:
        tensors: images, each (C, H, W).
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
    stride = max(size_divisibility, 1)
    most = (functools.reduce(torch.sym_max, column) for column in zip(*sizes, strict=True))
    height, width = ((size + stride - 1) // stride * stride for size in most)
    padded = [
        torch.nn.functional.pad(image, (0, width - w, 0, height - h), value=pad_value)
        for image, (h, w) in zip(tensors, sizes, strict=True)
    ]
    return ImageList(torch.stack(padded), sizes)


def image_sizes(batched_inputs: Sequence[dict[str, Any]]) -> Any:
    """Height and width of each image, for a model with that example.

    Below 96 pixels the coarsest level of a pyramid may have one row, which tracing takes for
    another case; 1344 is the longest side of the zoo's images, 1333, padded.
    """

    def sides(image: Tensor) -> dict[int, Any]:
        return {i: Dim.DYNAMIC(min=96, max=max(1344, int(image.shape[i]))) for i in (1, 2)}

    return (
        [
            {name: sides(value) if name == "image" else None for name, value in one.items()}
            for one in batched_inputs
        ],
    )


def _flatten_instances(instances: Any) -> tuple[list[Any], Any]:
    """The image's size is among the leaves: in a graph it may vary."""
    fields = instances.get_fields()
    return [*instances.image_size, *fields.values()], tuple(fields)


def _unflatten_instances(values: Any, names: Any) -> Any:
    height, width, *fields = values
    instances = Instances((height, width))
    instances._fields.update(zip(names, fields, strict=True))
    return instances


def _unflatten_boxes(values: Any, context: None) -> Any:
    boxes = Boxes.__new__(Boxes)
    (boxes.tensor,) = values
    return boxes


pytree.register_pytree_node(
    Instances,
    _flatten_instances,
    _unflatten_instances,
    serialized_type_name="detectron2.structures.Instances",
)
pytree.register_pytree_node(
    Boxes,
    lambda boxes: ([boxes.tensor], None),
    _unflatten_boxes,
    serialized_type_name="detectron2.structures.Boxes",
)

GENERALIZED_RCNN = register(
    ComponentPlan(
        "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN",
        {
            "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals": (
                find_top_rpn_proposals
            ),
            "detectron2.modeling.roi_heads.fast_rcnn.fast_rcnn_inference_single_image": (
                fast_rcnn_inference_single_image
            ),
            "detectron2.modeling.roi_heads.fast_rcnn.len": rows,
            "detectron2.structures.Boxes.__init__": new_boxes,
            "detectron2.structures.Boxes.clip": clip,
            "detectron2.structures.ImageList.from_tensors": staticmethod(from_tensors),
            "detectron2.structures.Instances.set": set_field,
        },
        image_sizes,
        glue=(
            "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN._postprocess",
            "detectron2.modeling.poolers.ROIPooler.forward",
            "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals",
            "detectron2.modeling.roi_heads.cascade_rcnn.fast_rcnn_inference",
            "detectron2.modeling.roi_heads.fast_rcnn.fast_rcnn_inference",
            "detectron2.modeling.roi_heads.keypoint_head.keypoint_rcnn_inference",
            "detectron2.modeling.roi_heads.mask_head.mask_rcnn_inference",
            "detectron2.structures.ImageList.from_tensors",
        ),
    )
)
