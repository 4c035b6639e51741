"""The part that the steps around the cores of all of Detectron2's models share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..core_batch import core_example
from ..host_steps import Prepared
from .image_batch import ImageReader, core_shapes

__all__ = ["Steps", "found_instances"]


class Steps:
    """Everything of `HostSteps` but `after`.

    A core takes the inputs of `ImageBatch`, of which `after` gets the batch itself.
    """

    def __init__(self, model: Any, core: torch.nn.Module, coarsest: int = 64) -> None:
        """Make the steps around `core`; `coarsest` is the largest stride of the levels."""
        self.core = core
        self.model = model
        self._reader = ImageReader(model)
        self._coarsest = coarsest

    def before(self, batched_inputs: Any) -> Prepared:
        batch = self._reader.read(batched_inputs)
        return Prepared(batch.inputs, batch)

    example = staticmethod(core_example)

    def dynamic_shapes(self, inputs: tuple[Tensor, ...], most_images: int) -> Any:
        return core_shapes(inputs, most_images, self.model.backbone, self._coarsest)


def found_instances(
    picture: Sequence[int], boxes: Tensor, scores: Tensor, classes: Tensor
) -> Instances:
    """Return the detections of a picture, whose height and width `picture` says."""
    instances = Instances(tuple(picture))
    instances.pred_boxes = Boxes(boxes)
    instances.scores = scores
    instances.pred_classes = classes
    return instances
