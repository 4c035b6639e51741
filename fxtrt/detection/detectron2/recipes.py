"""Register the recipes of Detectron2's detectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim

from ...errors import CaptureError
from ..host_steps import HostSteps
from ..norms import NORMS
from ..ops.detectron2_batched_nms import batched_nms
from ..ops.detectron2_heatmaps_to_keypoints import heatmaps_to_keypoints
from ..ops.detectron2_roi_align_rotated import roi_align_rotated
from ..recipes import Equivalents, Recipe, register
from ..symbolic_len import symbolic_len
from .deformable import deform_conv, modulated_deform_conv
from .dense import decode_level, detections_of_logits
from .one_stage import one_stage_steps
from .panoptic import combine
from .proposal_network import proposal_network_steps
from .proposals import (
    IS_0_4,
    fast_rcnn_inference_single_image,
    find_top_rpn_proposals,
)
from .rcnn import rcnn_steps
from .rotated import (
    clip_rotated,
    fast_rcnn_inference_single_image_rotated,
    find_top_rrpn_proposals,
    new_rotated_boxes,
)
from .segmentation import panoptic_steps, semantic_steps
from .structures import (
    clip,
    conv2d,
    from_tensors,
    new_boxes,
    pooler_format,
    select,
    sem_seg_postprocess,
    set_field,
    to_bitmasks,
)

__all__ = ["GENERALIZED_RCNN", "STRUCTURES"]

_KEYS_READ = ("image", "height", "width", "proposals")
"""The keys of the input dicts that the models read for inference."""
_LARGEST_PICTURE = 1 << 15
"""The largest side, in pixels, of the pictures that detections are scaled to."""


def images_and_sizes(batched_inputs: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    """Return the inputs without what the models ignore, such as file names and ground truth.

    Images of bytes become float32, as in the models, so that both kinds of images fit one graph.
    """

    def read(value: Any) -> Any:
        is_bytes = isinstance(value, Tensor) and value.dtype == torch.uint8
        return value.float() if is_bytes else value

    return (
        [{name: read(one[name]) for name in _KEYS_READ if name in one} for one in batched_inputs],
    )


def image_sizes(batched_inputs: Sequence[dict[str, Any]], coarsest: int = 64) -> Any:
    """Return the dynamic sizes of an example: those of each image, and of its original picture.

    A side may have up to 1344 pixels: the longest side of the model zoo's images, 1333, padded.

    Args:
        coarsest: the largest stride of the pyramid's levels. A level must have at least two rows,
            because tracing specializes on a size of 1.

    Raises:
        CaptureError: the example is too small for that.
    """

    def sizes(name: str, value: Any) -> Any:
        if name == "image":
            return {i: _side(int(value.shape[i]), coarsest + 1) for i in (1, 2)}
        return Dim.DYNAMIC(min=1, max=_LARGEST_PICTURE) if type(value) is int else None

    return ([{name: sizes(name, value) for name, value in one.items()} for one in batched_inputs],)


def _side(example: int, least: int) -> Any:
    if example < least:
        raise CaptureError(f"the image has a side of {example} pixels, and {least} are the fewest")
    return Dim.DYNAMIC(min=least, max=max(1344, example))


_META_ARCH = "detectron2.modeling.meta_arch"
_COMBINE = f"{_META_ARCH}.panoptic_fpn.combine_semantic_and_instance_outputs"
_FROM_TENSORS = "detectron2.structures.ImageList.from_tensors"
STRUCTURES: Equivalents = {
    "detectron2.layers.Conv2d.forward": conv2d,
    "detectron2.layers.deform_conv.deform_conv": deform_conv,
    "detectron2.layers.deform_conv.modulated_deform_conv": modulated_deform_conv,
    "detectron2.structures.Boxes.__init__": new_boxes,
    "detectron2.structures.Boxes.clip": clip,
    _FROM_TENSORS: staticmethod(from_tensors),
    "detectron2.structures.Instances.__getitem__": select,
    "detectron2.structures.Instances.set": set_field,
}
_PROPOSALS: Equivalents = {
    "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals": find_top_rpn_proposals,
    "detectron2.modeling.proposal_generator.rrpn.find_top_rrpn_proposals": find_top_rrpn_proposals,
    "detectron2.structures.RotatedBoxes.__init__": new_rotated_boxes,
    "detectron2.structures.RotatedBoxes.clip": clip_rotated,
}
_HEADS: Equivalents = {
    **NORMS,
    "detectron2.layers.roi_align_rotated.roi_align_rotated": roi_align_rotated,
    "detectron2.modeling.poolers.convert_boxes_to_pooler_format": pooler_format,
    "detectron2.modeling.roi_heads.fast_rcnn.fast_rcnn_inference_single_image": (
        fast_rcnn_inference_single_image
    ),
    "detectron2.modeling.roi_heads.fast_rcnn.len": symbolic_len,
    "detectron2.modeling.roi_heads.rotated_fast_rcnn.fast_rcnn_inference_single_image_rotated": (
        fast_rcnn_inference_single_image_rotated
    ),
    "detectron2.modeling.roi_heads.keypoint_head.heatmaps_to_keypoints": heatmaps_to_keypoints,
    "detectron2.modeling.roi_heads.keypoint_head.len": symbolic_len,
    "detectron2.modeling.roi_heads.mask_head.len": symbolic_len,
    "detectron2.structures.ROIMasks.to_bitmasks": to_bitmasks,
}
_GLUE = (
    f"{_META_ARCH}.rcnn.GeneralizedRCNN._postprocess",
    f"{_META_ARCH}.rcnn.detector_postprocess",
    "detectron2.modeling.poolers.ROIPooler.forward",
    "detectron2.modeling.proposal_generator.rpn.find_top_rpn_proposals",
    "detectron2.modeling.roi_heads.cascade_rcnn.fast_rcnn_inference",
    "detectron2.modeling.roi_heads.fast_rcnn.fast_rcnn_inference",
    "detectron2.modeling.roi_heads.keypoint_head.keypoint_rcnn_inference",
    "detectron2.modeling.roi_heads.mask_head.mask_rcnn_inference",
    _FROM_TENSORS,
)


def _register(
    architecture: str,
    equivalents: Equivalents,
    glue: tuple[str, ...] = (),
    sizes: Callable[..., Any] = image_sizes,
    host_steps: Callable[[Any], HostSteps | str] | None = None,
) -> Recipe:
    """Register the recipe of a class of `detectron2.modeling.meta_arch`."""
    name = f"{_META_ARCH}.{architecture}"
    together = {**STRUCTURES, **equivalents}
    recipe = Recipe(name, together, sizes, images_and_sizes, glue, host_steps=host_steps)
    return register(recipe)


_DENSE_SIZES = partial(image_sizes, coarsest=128)


GENERALIZED_RCNN = _register(
    "rcnn.GeneralizedRCNN", {**_PROPOSALS, **_HEADS}, _GLUE, host_steps=rcnn_steps
)
PROPOSAL_NETWORK = _register(
    "rcnn.ProposalNetwork", _PROPOSALS, _GLUE, host_steps=proposal_network_steps
)
SEMANTIC_SEGMENTOR = _register(
    "semantic_seg.SemanticSegmentor",
    {f"{_META_ARCH}.semantic_seg.sem_seg_postprocess": sem_seg_postprocess},
    host_steps=semantic_steps,
)
PANOPTIC_FPN = _register(
    "panoptic_fpn.PanopticFPN",
    {
        **_PROPOSALS,
        **_HEADS,
        _COMBINE: combine,
        f"{_META_ARCH}.panoptic_fpn.sem_seg_postprocess": sem_seg_postprocess,
    },
    (*_GLUE, _COMBINE),
    host_steps=panoptic_steps,
)
if IS_0_4:
    _SINGLE_IMAGE = f"{_META_ARCH}.retinanet.RetinaNet.inference_single_image"
    RETINANET = _register(
        "retinanet.RetinaNet",
        {_SINGLE_IMAGE: detections_of_logits},
        (_FROM_TENSORS, _SINGLE_IMAGE, f"{_META_ARCH}.retinanet.detector_postprocess"),
        _DENSE_SIZES,
        one_stage_steps,
    )
else:
    DENSE_DETECTOR = _register(
        "dense_detector.DenseDetector",
        {
            f"{_META_ARCH}.dense_detector.DenseDetector._decode_per_level_predictions": (
                decode_level
            ),
            f"{_META_ARCH}.fcos.batched_nms": batched_nms,
            f"{_META_ARCH}.retinanet.batched_nms": batched_nms,
        },
        (
            _FROM_TENSORS,
            f"{_META_ARCH}.dense_detector.detector_postprocess",
            f"{_META_ARCH}.fcos.FCOS.inference_single_image",
            f"{_META_ARCH}.retinanet.RetinaNet.inference_single_image",
        ),
        _DENSE_SIZES,
        one_stage_steps,
    )
