"""The plans of Detectron2's detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.export import Dim

from .detectron2_dense import decode_level, detections_of_logits
from .detectron2_operators import batched_nms, heatmaps_to_keypoints
from .detectron2_panoptic import combine
from .detectron2_selection import (
    IS_0_4,
    fast_rcnn_inference_single_image,
    find_top_rpn_proposals,
)
from .detectron2_structures import (
    clip,
    conv2d,
    from_tensors,
    new_boxes,
    pooler_format,
    select,
    set_field,
    to_bitmasks,
)
from .lengths import rows
from .norms import NORMS
from .plans import ComponentPlan, Equivalents, register

__all__ = ["GENERALIZED_RCNN"]


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


_STRUCTURES: Equivalents = {
    "detectron2.layers.Conv2d.forward": conv2d,
    "detectron2.structures.Boxes.__init__": new_boxes,
    "detectron2.structures.Boxes.clip": clip,
    "detectron2.structures.ImageList.from_tensors": staticmethod(from_tensors),
    "detectron2.structures.Instances.__getitem__": select,
    "detectron2.structures.Instances.set": set_field,
}
_PROPOSALS: Equivalents = {
    "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals": find_top_rpn_proposals
}
_HEADS: Equivalents = {
    **NORMS,
    "detectron2.modeling.poolers.convert_boxes_to_pooler_format": pooler_format,
    "detectron2.modeling.roi_heads.fast_rcnn.fast_rcnn_inference_single_image": (
        fast_rcnn_inference_single_image
    ),
    "detectron2.modeling.roi_heads.fast_rcnn.len": rows,
    "detectron2.modeling.roi_heads.keypoint_head.heatmaps_to_keypoints": heatmaps_to_keypoints,
    "detectron2.modeling.roi_heads.keypoint_head.len": rows,
    "detectron2.modeling.roi_heads.mask_head.len": rows,
    "detectron2.structures.ROIMasks.to_bitmasks": to_bitmasks,
}
_GLUE = (
    "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN._postprocess",
    "detectron2.modeling.poolers.ROIPooler.forward",
    "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals",
    "detectron2.modeling.roi_heads.cascade_rcnn.fast_rcnn_inference",
    "detectron2.modeling.roi_heads.fast_rcnn.fast_rcnn_inference",
    "detectron2.modeling.roi_heads.keypoint_head.keypoint_rcnn_inference",
    "detectron2.modeling.roi_heads.mask_head.mask_rcnn_inference",
    "detectron2.structures.ImageList.from_tensors",
)

GENERALIZED_RCNN = register(
    ComponentPlan(
        "detectron2.modeling.meta_arch.rcnn.GeneralizedRCNN",
        {**_STRUCTURES, **_PROPOSALS, **_HEADS},
        image_sizes,
        _GLUE,
    )
)
PROPOSAL_NETWORK = register(
    ComponentPlan(
        "detectron2.modeling.meta_arch.rcnn.ProposalNetwork",
        {**_STRUCTURES, **_PROPOSALS},
        image_sizes,
    )
)
SEMANTIC_SEGMENTOR = register(
    ComponentPlan(
        "detectron2.modeling.meta_arch.semantic_seg.SemanticSegmentor",
        _STRUCTURES,
    )
)
PANOPTIC_FPN = register(
    ComponentPlan(
        "detectron2.modeling.meta_arch.panoptic_fpn.PanopticFPN",
        {
            **_STRUCTURES,
            **_PROPOSALS,
            **_HEADS,
            "detectron2.modeling.meta_arch.panoptic_fpn.combine_semantic_and_instance_outputs": (
                combine
            ),
        },
    )
)

_META_ARCH = "detectron2.modeling.meta_arch"
# Sizes are the example's: a graph with dynamic ones holds for few others, and backbone and head
# have engines for those.
if IS_0_4:
    RETINANET = register(
        ComponentPlan(
            f"{_META_ARCH}.retinanet.RetinaNet",
            {
                **_STRUCTURES,
                f"{_META_ARCH}.retinanet.RetinaNet.inference_single_image": detections_of_logits,
            },
        )
    )
else:
    DENSE_DETECTOR = register(
        ComponentPlan(
            f"{_META_ARCH}.dense_detector.DenseDetector",
            {
                **_STRUCTURES,
                f"{_META_ARCH}.dense_detector.DenseDetector._decode_per_level_predictions": (
                    decode_level
                ),
                f"{_META_ARCH}.fcos.batched_nms": batched_nms,
                f"{_META_ARCH}.retinanet.batched_nms": batched_nms,
            },
        )
    )
