"""Register the recipe of Panoptic-DeepLab, a project in Detectron2's repository.

The model finds its segments and instances in two steps, which loop over labels: each step is one
operator of the graph, in PyTorch. Importing this module also lets pytrees turn what the graph
returns for a picture into the project's dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor
from torch.utils import _pytree as pytree

from ..ops.panoptic_deeplab_instances import instances
from ..ops.panoptic_deeplab_labels import PACKAGES, labels
from ..recipes import Recipe, register
from .recipes import STRUCTURES, image_sizes, images_and_sizes
from .structures import sem_seg_postprocess

__all__ = ["forward"]


def forward(model: Any, batched_inputs: Sequence[dict[str, Any]]) -> list[Any]:
    """Replace `PanopticDeepLab.forward` for inference, with an operator in place of each loop."""
    divisibility = model.size_divisibility
    if divisibility <= 0:
        divisibility = model.backbone.size_divisibility
    images = [one["image"].to(model.device) for one in batched_inputs]
    images = [(image - model.pixel_mean) / model.pixel_std for image in images]
    padded = ImageList.from_tensors(images, divisibility)
    features = model.backbone(padded.tensor)
    semantics, _ = model.sem_seg_head(features, None, None)
    centers, offsets, _, _ = model.ins_embed_head(features, None, None, None, None)
    if model.benchmark_network_speed:
        return []
    maps = zip(semantics, centers, offsets, strict=True)
    return [
        _answer(model, [sem_seg_postprocess(x, size, one["height"], one["width"]) for x in three])
        for three, one, size in zip(maps, batched_inputs, padded.image_sizes, strict=True)
    ]


def _answer(model: Any, maps: Sequence[Tensor]) -> Any:
    semantic, centers, offsets = maps
    things = list(model.meta.thing_dataset_id_to_contiguous_id.values())
    divisor = model.meta.label_divisor
    best = semantic.argmax(dim=0, keepdim=True)
    settings = (model.stuff_area, model.threshold, model.nms_kernel, model.top_k)
    panoptic = labels(best, centers, offsets, things, divisor, *settings).squeeze(0)
    if not model.predict_instances:
        return {"sem_seg": semantic, "panoptic_seg": (panoptic, None)}
    probabilities = semantic.softmax(dim=0)
    found = instances(panoptic, probabilities, centers, things, divisor)
    return _Answer(semantic, panoptic, *found)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The result for one picture, while a graph is captured."""

    semantic: Tensor
    panoptic: Tensor
    classes: Tensor
    masks: Tensor
    scores: Tensor
    boxes: Tensor


def _flatten(answer: _Answer) -> tuple[list[Tensor], None]:
    return [getattr(answer, name) for name in _Answer.__slots__], None


def _unflatten(values: Any, context: None) -> Any:
    answer = _Answer(*values)
    # During capture the leaves are fake tensors or placeholders, whose values cannot be read.
    return _as_dict(answer) if type(answer.classes) is Tensor else answer


def _as_dict(answer: _Answer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "sem_seg": answer.semantic,
        "panoptic_seg": (answer.panoptic, None),
    }
    if len(answer.classes):
        found["instances"] = Instances(
            tuple(answer.panoptic.shape),
            pred_classes=answer.classes,
            pred_masks=answer.masks,
            scores=answer.scores,
            pred_boxes=Boxes(answer.boxes),
        )
    return found


pytree.register_pytree_node(
    _Answer,
    _flatten,
    _unflatten,
    serialized_type_name="fxtrt.detection.detectron2.panoptic_deeplab.Answer",
)

for _package in PACKAGES:
    _name = f"{_package}.panoptic_seg.PanopticDeepLab"
    register(
        Recipe(
            _name,
            {**STRUCTURES, f"{_name}.forward": forward},
            image_sizes,
            images_and_sizes,
        )
    )
