"""The steps around the cores of all of Detectron2's models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core_batch import core_example
from ..host_steps import Prepared
from .image_batch import ImageReader, core_shapes
from .input_dicts import ImageBatch
from .instances import with_instances
from .results import ResultRules, results_of
from .steps_data import StepsData

__all__ = ["Steps"]


class Steps:
    """See `HostSteps`. A core takes the inputs of `ImageBatch`, or only the first of them."""

    def __init__(
        self,
        model: Any,
        core: torch.nn.Module,
        rules: Callable[[], ResultRules],
        coarsest: int = 64,
    ) -> None:
        """Make the steps around `core`.

        Args:
            rules: tells what the model returns, as its attributes are now.
            coarsest: the largest stride of the levels.
        """
        self.core = core
        self.model = model
        self._rules = rules
        self._reader = ImageReader(model)
        self._coarsest = coarsest

    def before(self, batched_inputs: Any) -> Prepared:
        batch = self._reader.read(batched_inputs)
        return Prepared(batch.inputs[: self._rules().inputs], batch)

    def after(self, outputs: Sequence[Tensor], context: ImageBatch) -> list[dict[str, Any]]:
        results = results_of(self._rules(), outputs, context)
        return [
            with_instances(result, picture)
            for result, picture in zip(results, context.pictures, strict=True)
        ]

    def as_data(self) -> StepsData | str:
        """Return the same steps as data, or why they need the model."""
        read = self._reader.as_data()
        if isinstance(read, str):
            return read
        mean, std, step, square = read
        return StepsData("detectron2", tuple(mean), tuple(std), step, square, self._rules())

    example = staticmethod(core_example)

    def dynamic_shapes(self, inputs: tuple[Tensor, ...], most_images: int) -> Any:
        return core_shapes(inputs, most_images, self.model.backbone, self._coarsest)
