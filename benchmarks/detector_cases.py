"""Turns the key of a detector into a calibrated model, and batches of images for it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torchvision.models import get_model

from fxtrt.diagnostics.example_models import calibrate, load_photograph

__all__ = ["CASES", "Built", "Case"]

Size = tuple[int, int]
_ZOOM = 4 / 3
"""Detectron2 gives its answers for the picture before it was resized."""


@dataclass(frozen=True, slots=True)
class Built:
    """A model in eval mode, and a function from a number of images to a batch of that many."""

    model: nn.Module
    batch: Callable[[int], list[Any]]


@dataclass(frozen=True, slots=True)
class Case:
    """One detector to measure.

    key:     what the command line calls it.
    name:    what tables call it.
    package: "detectron2" or "torchvision".
    make:    returns the model, in eval mode, for images of this height and width.
    """

    key: str
    name: str
    package: str
    make: Callable[[Size], nn.Module] = field(repr=False)

    def build(self, size: Size, device: str = "cpu") -> Built:
        """Return the calibrated model and its images, both on `device`."""
        torch.manual_seed(0)
        # Large models are calibrated much faster on a GPU.
        model = self.make(size).eval().to(device)
        with torch.no_grad():
            calibrate(model, (self.images(1, size, device),))
        return Built(model, lambda count: self.images(count, size, device))

    def images(self, count: int, size: Size, device: str = "cpu") -> list[Any]:
        """Return a batch of different images, as the model takes it."""
        make = _detectron2_images if self.package == "detectron2" else _torchvision_images
        moved = tree_map_only(Tensor, lambda image: image.to(device), make(count, size))
        return list(moved)


def _pictures(count: int, size: Size) -> list[Tensor]:
    """Return different pictures in 0..1: the photograph, turned, mirrored and dimmed."""
    photograph = nn.functional.interpolate(load_photograph()[None], size, mode="bilinear")[0]
    turned = [photograph, photograph.flip(2), photograph.flip(1), photograph.flip(1, 2)]
    return [(turned[i % 4] * (1.0 - 0.1 * (i // 4))).contiguous() for i in range(count)]


def _detectron2_images(count: int, size: Size) -> list[dict[str, Any]]:
    height, width = (round(side / _ZOOM) for side in size)
    return [
        {"image": picture * 255, "height": height, "width": width}
        for picture in _pictures(count, size)
    ]


def _torchvision_images(count: int, size: Size) -> list[Tensor]:
    return _pictures(count, size)


def _of_zoo(name: str, *options: Any) -> Callable[[Size], nn.Module]:
    """Return a function that makes a model of Detectron2 as `detector_families` names it."""

    def make(size: Size) -> nn.Module:
        _require_detectron2()
        from detector_families import FAMILIES

        (family,) = [one for one in FAMILIES if one.name == name]
        return replace(family, options=options).model()

    return make


def _of_torchvision(name: str) -> Callable[[Size], nn.Module]:
    def make(size: Size) -> nn.Module:
        sides: Mapping[str, int] = {"min_size": min(size), "max_size": max(size)}
        # SSD has a size of its own.
        given = {} if name.startswith("ssd") else sides
        model: nn.Module = get_model(name, weights=None, weights_backbone=None, **given)
        return model

    return make


def _require_detectron2() -> None:
    if importlib.util.find_spec("detectron2") is None:
        from detectron2_package import require_detectron2

        require_detectron2()


def _case(key: str, name: str) -> Case:
    return Case(key, name, "detectron2", _of_zoo(name))


def _torchvision_case(key: str, name: str, model: str) -> Case:
    return Case(key, name, "torchvision", _of_torchvision(model))


_ALL: Sequence[Case] = (
    _case("faster", "Faster R-CNN R50-FPN"),
    _case("c4", "Faster R-CNN R50-C4"),
    _case("x101", "Faster R-CNN X101-32x8d-FPN"),
    _case("mask", "Mask R-CNN R50-FPN"),
    _case("keypoint", "Keypoint R-CNN R50-FPN"),
    _case("cascade", "Cascade Mask R-CNN R50-FPN"),
    _case("panoptic", "Panoptic FPN R50"),
    _case("retinanet", "RetinaNet R50"),
    _case("fcos", "FCOS R50-FPN"),
    _torchvision_case("tv-faster", "torchvision Faster R-CNN R50-FPN", "fasterrcnn_resnet50_fpn"),
    _torchvision_case("tv-mask", "torchvision Mask R-CNN R50-FPN", "maskrcnn_resnet50_fpn"),
    _torchvision_case("tv-retinanet", "torchvision RetinaNet R50", "retinanet_resnet50_fpn"),
    _torchvision_case("tv-ssd", "torchvision SSD300 VGG16", "ssd300_vgg16"),
)
CASES: Mapping[str, Case] = {case.key: case for case in _ALL}
