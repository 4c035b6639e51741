"""The plan of Panoptic-DeepLab, a project in Detectron2's repository.

Its segments and instances are found label by label, as the data decides: each of the two steps is
one operator of the graph, in PyTorch. Importing this module defines them, and lets pytrees turn
what the graph gives for a picture into the project's dict.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from torch import Tensor
from torch.utils import _pytree as pytree

from ...registry import explain
from ..recipes import Recipe, register
from .recipes import (
    STRUCTURES,
    image_sizes,
    images_and_sizes,
)
from .structures import sem_seg_postprocess

__all__ = ["forward"]

_PACKAGES = ("detectron2.projects.panoptic_deeplab", "panoptic_deeplab")
"""Its names: as a project of an installed Detectron2, and with its folder on the path."""
_VOID = -1


@torch.library.custom_op("fxtrt::panoptic_deeplab_labels", mutates_args=())
def labels(
    semantic: Tensor,
    centers: Tensor,
    offsets: Tensor,
    things: list[int],
    divisor: int,
    stuff_area: int,
    threshold: float,
    kernel: int,
    most: int,
) -> Tensor:
    """`get_panoptic_segmentation` of the project: a vote for each instance.

    Args:
        semantic: (1, H, W), int64; centers: (1, H, W); offsets: (2, H, W).

    Returns:
        (1, H, W), int64: the class times `divisor`, and the instance's number; -1 for neither.
    """
    settings = (things, divisor, stuff_area, _VOID, threshold, kernel, most)
    find = _post_processing().get_panoptic_segmentation
    panoptic: Tensor = find(semantic, centers, offsets, *settings)[0]
    return panoptic


@labels.register_fake
def _(
    semantic: Tensor,
    centers: Tensor,
    offsets: Tensor,
    things: list[int],
    divisor: int,
    stuff_area: int,
    threshold: float,
    kernel: int,
    most: int,
) -> Tensor:
    return torch.empty_like(semantic)


def _post_processing() -> Any:
    names = (f"{package}.post_processing" for package in _PACKAGES)
    return next(sys.modules[name] for name in names if name in sys.modules)


@torch.library.custom_op("fxtrt::panoptic_deeplab_instances", mutates_args=())
def instances(
    panoptic: Tensor, probabilities: Tensor, centers: Tensor, things: list[int], divisor: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The instances of a picture, in the order of their labels.

    A score is the mean probability of the class in the mask, times that of the mask's centre.

    Args:
        panoptic: (H, W), int64; probabilities: (classes, H, W); centers: (1, H, W).

    Returns:
        Classes (N,), int64; masks (N, H, W), bool; scores (N,), float32; boxes (N, 4), float32.
    """
    numbers = [int(label) for label in torch.unique(panoptic).tolist() if label != _VOID]
    found = [label for label in numbers if label // divisor in things]
    classes = torch.tensor(
        [label // divisor for label in found], dtype=torch.int64, device=panoptic.device
    )
    masks = panoptic == torch.tensor(found, device=panoptic.device).reshape(-1, 1, 1)
    scores = [
        _score(mask, probabilities[label // divisor], centers[0])
        for label, mask in zip(found, masks, strict=True)
    ]
    boxes: Tensor = BitMasks(masks).get_bounding_boxes().tensor
    return (
        classes,
        masks,
        torch.tensor(scores, dtype=torch.float32, device=panoptic.device),
        boxes.to(panoptic.device),
    )


@instances.register_fake
def _(
    panoptic: Tensor, probabilities: Tensor, centers: Tensor, things: list[int], divisor: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size(min=0)
    return (
        panoptic.new_empty((count,)),
        panoptic.new_empty((count, *panoptic.shape), dtype=torch.bool),
        panoptic.new_empty((count,), dtype=torch.float32),
        panoptic.new_empty((count, 4), dtype=torch.float32),
    )


def _score(mask: Tensor, probability: Tensor, centers: Tensor) -> Tensor:
    rows, columns = mask.nonzero().float().unbind(1)
    row, column = (int(values.mean().item()) for values in (rows, columns))
    return probability[mask].mean() * centers[row, column]


def forward(model: Any, batched_inputs: Sequence[dict[str, Any]]) -> list[Any]:
    """`PanopticDeepLab.forward` for inference, with an operator in place of each loop."""
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
    """What is found in a picture, while a graph is captured."""

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
    # While capturing they are none yet, or stand-ins.
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

explain("fxtrt::panoptic_deeplab_labels", "it votes for the class of instance after instance")
explain("fxtrt::panoptic_deeplab_instances", "it looks at the pixels of one instance after another")

for _package in _PACKAGES:
    _name = f"{_package}.panoptic_seg.PanopticDeepLab"
    register(
        Recipe(
            _name,
            {**STRUCTURES, f"{_name}.forward": forward},
            image_sizes,
            images_and_sizes,
        )
    )
