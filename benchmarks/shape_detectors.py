"""Turns the name of an architecture into an untrained detector, and pictures into its inputs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from shape_pictures import Picture, Task
from small_fcos import small_fcos
from torch import nn

__all__ = ["ARCHITECTURES", "Architecture", "Plan"]

_ZOO = {
    "faster_rcnn_R_50_FPN": "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    "mask_rcnn_R_50_FPN": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "retinanet_R_50_FPN": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
}
_FROM_SCRATCH = (
    *("MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "BN"),
    *("MODEL.FPN.NORM", "BN", "MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("MODEL.PIXEL_STD", [57.375, 57.12, 58.395]),
)
"""The zoo's configs start from weights of ImageNet, with norms that learn nothing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The length and rate of a training.

    pictures: how many different ones; each step takes `batch` of them, flipped at random.
    rate:     the highest learning rate of a one-cycle schedule.
    """

    pictures: int
    steps: int
    batch: int
    rate: float


@dataclass(frozen=True, slots=True)
class Architecture:
    """A detector, the pictures that it is trained on, and how long."""

    name: str
    task: Task
    plan: Plan

    @property
    def is_detectron2(self) -> bool:
        return self.name in _ZOO

    def build(self, task: Task, options: Sequence[Any] = ()) -> nn.Module:
        """Return the model with random weights, on the CPU, in training mode.

        Args:
            options: changes to a config of Detectron2: names and values in turns.
        """
        if not self.is_detectron2:
            return small_fcos(task.categories, task.size)
        _require_detectron2()
        from detectron2 import model_zoo
        from detectron2.modeling import build_model

        cfg = model_zoo.get_config(_ZOO[self.name])
        classes = ("MODEL.ROI_HEADS.NUM_CLASSES", "MODEL.RETINANET.NUM_CLASSES")
        numbers = [value for name in classes for value in (name, task.categories)]
        cfg.merge_from_list([*_FROM_SCRATCH, *numbers, "MODEL.DEVICE", "cpu", *options])
        return build_model(cfg)  # type: ignore[no-any-return]  # untyped

    def inputs(self, pictures: Sequence[Picture], device: str) -> list[Any]:
        """Return what the model takes in eval mode."""
        images = [one.image.to(device).float() for one in pictures]
        if not self.is_detectron2:
            return [image / 255 for image in images]
        sides = [{"height": one.shape[1], "width": one.shape[2]} for one in images]
        return [{"image": image, **side} for image, side in zip(images, sides, strict=True)]

    def losses(self, model: nn.Module, pictures: Sequence[Picture], device: str) -> Any:
        """Return the losses by name of a model in training mode."""
        inputs = self.inputs(pictures, device)
        if not self.is_detectron2:
            targets = [{k: v.to(device) for k, v in one.items()} for one in self.truth(pictures)]
            return model(inputs, targets)
        from detectron2.utils.events import EventStorage

        for one, picture in zip(inputs, pictures, strict=True):
            one["instances"] = _instances(picture, device)
        with EventStorage():
            return model(inputs)

    def truth(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """Return the annotations, with the labels that the model's predictions have."""
        background = 0 if self.is_detectron2 else 1  # torchvision's first class
        return [{"boxes": one.boxes, "labels": one.labels + background} for one in pictures]


def _require_detectron2() -> None:
    if importlib.util.find_spec("detectron2") is None:
        from detectron2_package import require_detectron2

        require_detectron2()


def _instances(picture: Picture, device: str) -> Any:
    from detectron2.structures import BitMasks, Boxes, Instances

    found = Instances(tuple(picture.image.shape[1:]))
    found.gt_boxes, found.gt_classes = Boxes(picture.boxes), picture.labels
    found.gt_masks = BitMasks(picture.masks)
    return found.to(torch.device(device))


_SMALL = Architecture(
    "small",
    Task((96, 128), categories=3, most_shapes=4, radii=(0.12, 0.3)),
    Plan(pictures=1500, steps=800, batch=8, rate=4e-3),
)
_LARGE_PLAN = Plan(pictures=4000, steps=1500, batch=16, rate=4e-4)
_ALL = (_SMALL, *(Architecture(name, Task((320, 416)), _LARGE_PLAN) for name in _ZOO))
ARCHITECTURES: Mapping[str, Architecture] = {one.name: one for one in _ALL}
