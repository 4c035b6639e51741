"""The steps around the core of any of Detectron2's models as data, which need no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ArtifactError, SettingsError
from ..host_steps import Prepared
from ..small_tables import SmallTables
from ..steps_limits import require_moments, require_sizes
from .input_dicts import ImageBatch, normalized, with_tables
from .results import ResultRules, plain, results_of

__all__ = ["LoadedSteps", "StepsData"]

_KEYS = ("image", "height", "width")
"""The keys of input dicts that a core's steps read."""


@dataclass(frozen=True, slots=True)
class StepsData:
    """All that the steps around a core know of their model.

    mean, std:         of each channel.
    size_divisibility: padded sides are multiples of it.
    square_size:       both sides of all batches, or 0.
    """

    library: Literal["detectron2"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size_divisibility: int
    square_size: int
    results: ResultRules

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many inputs and outputs the core has."""
        return self.results.inputs, self.results.outputs

    def require_sound(self) -> None:
        """Refuse what no model has.

        Raises:
            ArtifactError: it names the value.
        """
        require_moments(self.mean, self.std)
        require_sizes(self.size_divisibility, *([self.square_size] if self.square_size else []))
        kind, limits = self.results.kind, self.results.combine
        if (kind == "panoptic") != (limits is not None) or not all(
            map(math.isfinite, limits or ())
        ):
            raise ArtifactError(f"the results are {kind}, and are merged by {limits!r:.80}")
        if kind == "panoptic" and not self.results.masks:
            raise ArtifactError("the results are panoptic, and have no masks")

    def loaded(self, device: torch.device, answers: str) -> LoadedSteps:
        """Return the steps, for a core on `device`.

        Args:
            answers: "plain", or "detectron2" for its own classes.

        Raises:
            SettingsError: Detectron2 is not installed.
        """
        return LoadedSteps(self, device, own_classes=answers == "detectron2")

    def plain_inputs(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the arguments of a call as the loaded steps take them."""

        def read(value: Any) -> Any:
            return value if isinstance(value, Tensor) else int(value)

        return ([{key: read(one[key]) for key in _KEYS if key in one} for one in args[0]],)

    def plain_answers(self, answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers of the model as the loaded steps have them."""
        return [plain(answer) for answer in answers]


class LoadedSteps:
    """The steps of `StepsData`; see `HostSteps`."""

    def __init__(self, data: StepsData, device: torch.device, *, own_classes: bool) -> None:
        self._data = data
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            for values in (data.mean, data.std)
        )
        self._constraints = {"square_size": data.square_size} if data.square_size else None
        self._tables = SmallTables()
        self._with_instances = _with_instances() if own_classes else None

    def before(self, images: Any) -> Prepared:
        """Make the batch of images, each a tensor (3, height, width) or Detectron2's dict."""
        inputs = [_read(image) for image in images]
        if not inputs:
            raise ValueError("there are no images")
        data = self._data
        batch, sizes = normalized(
            [one["image"] for one in inputs],
            self._mean,
            self._std,
            data.size_divisibility,
            self._constraints,
        )
        read = with_tables(batch, sizes, inputs, self._tables)
        return Prepared(read.inputs[: data.results.inputs], read)

    def after(self, outputs: Sequence[Tensor], context: ImageBatch) -> list[dict[str, Any]]:
        """Return one dict for each image."""
        results = results_of(self._data.results, outputs, context)
        if self._with_instances is None:
            return list(map(plain, results))
        pairs = zip(results, context.pictures, strict=True)
        return [self._with_instances(result, picture) for result, picture in pairs]


def _read(image: Any) -> Mapping[str, Any]:
    one = {"image": image} if isinstance(image, Tensor) else image
    if not isinstance(one, Mapping) or not isinstance(one.get("image"), Tensor):
        raise TypeError(f"an image is a {type(image).__name__}, no tensor and no dict with one")
    if "proposals" in one:
        raise ValueError("the inputs have proposals of their own")
    pixels = one["image"]
    if pixels.ndim != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
        raise ValueError(f"an image has the shape {tuple(pixels.shape)}, not (3, height, width)")
    return one


def _with_instances() -> Any:
    try:
        from .instances import with_instances
    except ImportError as error:
        raise SettingsError(f"answers='detectron2' needs {error.name}") from error
    return with_instances
