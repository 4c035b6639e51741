"""Turn what a core returns into Detectron2's results, without its code.

A result is a dict like Detectron2's, with dicts of fields in place of `Instances`, and tensors in
place of `Boxes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..core_batch import counted
from ..ops.paste_masks import paste_masks
from .input_dicts import ImageBatch
from .panoptic_segments import Thresholds, combine

__all__ = ["ResultRules", "plain", "results_of"]

_MASK_THRESHOLD = 0.5
"""The default of `detector_postprocess`, which `GeneralizedRCNN` never changes."""
_PLAIN = {
    "pred_boxes": "boxes",
    "proposal_boxes": "boxes",
    "pred_classes": "labels",
    "scores": "scores",
    "pred_masks": "masks",
    "pred_keypoints": "keypoints",
    "objectness_logits": "objectness_logits",
}
"""The names of fields in plain answers. All others stay out: heat maps are larger than all else."""
Kind = Literal["instances", "proposals", "semantic", "panoptic"]


@dataclass(frozen=True, slots=True)
class ResultRules:
    """The form of what a model returns for each picture.

    masks, keypoints: whether instances have them.
    combine:          how segments are merged; for panoptic segmentation.
    """

    kind: Kind
    masks: bool = False
    keypoints: bool = False
    combine: Thresholds | None = None

    @property
    def inputs(self) -> int:
        """Return how many of the inputs of `ImageBatch` the core takes."""
        return 1 if self.kind == "semantic" else 4

    @property
    def outputs(self) -> int:
        """Return how many outputs the core has."""
        if self.kind in ("semantic", "proposals"):
            return {"semantic": 1, "proposals": 3}[self.kind]
        return 4 + self.masks + 2 * self.keypoints + (self.kind == "panoptic")


def results_of(
    rules: ResultRules, outputs: Sequence[Tensor], batch: ImageBatch
) -> list[dict[str, Any]]:
    """Return the result for each picture.

    Raises:
        TooManyCandidates: for an image whose result may differ.
    """
    if rules.kind == "semantic":
        return [{"sem_seg": classes} for classes in _semantic(outputs[0], batch)]
    if rules.kind == "proposals":
        return _proposals(outputs)
    if rules.kind == "instances":
        return [{"instances": fields} for fields in _instances(rules, outputs, batch)]
    assert rules.combine is not None
    *detections, logits = outputs
    found = zip(_instances(rules, detections, batch), _semantic(logits, batch), strict=True)
    return [
        {
            "sem_seg": classes,
            "instances": fields,
            "panoptic_seg": combine(fields, classes.argmax(dim=0), rules.combine),
        }
        for fields, classes in found
    ]


def plain(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of this module or of Detectron2 by torchvision's names, where it has one."""
    answer: dict[str, Any] = {}
    for key, value in result.items():
        if key not in ("instances", "proposals"):
            answer[key] = value
            continue
        fields = value if isinstance(value, dict) else value.get_fields()
        for name, field in fields.items():
            if name in _PLAIN:
                answer[_PLAIN[name]] = getattr(field, "tensor", field)
    return answer


def _proposals(outputs: Sequence[Tensor]) -> list[dict[str, Any]]:
    boxes, logits, summary = outputs
    return [
        {
            "proposals": {
                "proposal_boxes": _kept(boxes[image], row),
                "objectness_logits": _kept(logits[image], row),
            }
        }
        for image, row in enumerate(counted(summary))
    ]


def _semantic(logits: Tensor, batch: ImageBatch) -> list[Tensor]:
    """Cut off the padding of (B, classes, H, W) logits, and scale them to the pictures."""
    return [
        interpolate(
            of_image[None, :, :height, :width], picture, mode="bilinear", align_corners=False
        )[0]
        for of_image, (height, width), picture in zip(
            logits, batch.sizes, batch.pictures, strict=True
        )
    ]


def _instances(
    rules: ResultRules, outputs: Sequence[Tensor], batch: ImageBatch
) -> list[dict[str, Tensor]]:
    boxes, scores, classes, summary, *rest = outputs
    images = zip(*(output.unbind() for output in (boxes, scores, classes, *rest)), strict=True)
    return [
        _fields(rules, [_kept(output, row) for output in of_image], number, batch)
        for number, (row, of_image) in enumerate(zip(counted(summary), images, strict=True))
    ]


def _fields(
    rules: ResultRules, outputs: Sequence[Tensor], image: int, batch: ImageBatch
) -> dict[str, Tensor]:
    boxes, scores, classes, *rest = outputs
    fields = {"pred_boxes": boxes, "scores": scores, "pred_classes": classes}
    if rules.masks:
        masks, *rest = rest
        fields["pred_masks"] = paste_masks(masks, boxes, *batch.pictures[image], _MASK_THRESHOLD)
    if rules.keypoints:
        keypoints, maps = rest
        scale_x, scale_y = batch.scales[image]
        x, y, _, scores = keypoints.unbind(-1)
        fields["pred_keypoints"] = torch.stack([x * scale_x, y * scale_y, scores], -1)
        fields["pred_keypoint_heatmaps"] = maps
    return fields


def _kept(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Return those rows of an image that are detections with an area in the picture.

    Args:
        rows: (D, ...).
        counts: the image's row of the summary.
    """
    count, _, *flags = counts
    if all(flags[:count]):
        return rows[:count]
    return rows[[i for i, flag in enumerate(flags[:count]) if flag]]
