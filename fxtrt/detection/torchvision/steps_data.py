"""The steps around the core of any of torchvision's detectors as data, which need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ...errors import ArtifactError, SettingsError
from ..host_steps import Prepared
from ..small_tables import SmallTables
from ..steps_limits import require_moments, require_sizes
from .answers import found_in, place
from .pictures import ImageBatch, PictureRules, with_tables

__all__ = ["LoadedSteps", "StepsData"]

_NAMES = {"boxes", "labels", "scores", "masks", "keypoints"}


@dataclass(frozen=True, slots=True)
class StepsData:
    """All that the steps around a core know of their detector.

    names: what the detector calls its results, in its own order.
    """

    library: Literal["torchvision"]
    rules: PictureRules
    names: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many inputs and outputs the core has."""
        return 4, 1 + len(self.names)

    def require_sound(self) -> None:
        """Refuse what no detector has.

        Raises:
            ArtifactError: it names the value.
        """
        rules = self.rules
        require_moments(rules.mean, rules.std)
        require_sizes(rules.min_size, rules.max_size, rules.size_divisible)
        require_sizes(*(rules.fixed_size or ()))
        names = set(self.names)
        has_all = {"boxes", "labels", "scores"} <= names <= _NAMES
        if not has_all or len(names) != len(self.names):
            raise ArtifactError(f"the results of a detector have the names {self.names!r:.80}")

    def loaded(self, device: torch.device, answers: str) -> LoadedSteps:
        """Return the steps, for a core on `device`.

        Raises:
            SettingsError: the answers of torchvision's detectors are always plain.
        """
        if answers != "plain":
            raise SettingsError(f"a detector of torchvision has no answers={answers!r}")
        return LoadedSteps(self, device)

    def plain_inputs(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the arguments of a call as the loaded steps take them."""
        return ([image.detach() for image in args[0]],)

    def plain_answers(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the answers of the detector as the loaded steps have them."""
        return answers


class LoadedSteps:
    """The steps of `StepsData`; see `HostSteps`."""

    def __init__(self, data: StepsData, device: torch.device) -> None:
        self._data = data
        self._device = device
        self._tables = SmallTables()

    def before(self, images: Any) -> Prepared:
        """Make the batch of (3, height, width) floating point images, on any device."""
        pictures = [_read(image).to(self._device) for image in images]
        if not pictures:
            raise ValueError("there are no images")
        sizes = [(int(one.shape[1]), int(one.shape[2])) for one in pictures]
        batch, resized = self._data.rules.batch(pictures)
        read = with_tables(batch, resized, sizes, self._tables, places_boxes=True)
        return Prepared(read.inputs, read)

    def after(self, outputs: Sequence[Tensor], context: ImageBatch) -> list[dict[str, Any]]:
        """Return one dict of tensors for each image."""
        found: list[dict[str, Any]] = [*found_in(self._data.names, outputs)]
        place(found, context)
        return found


def _read(image: Any) -> Tensor:
    if not isinstance(image, Tensor):
        raise TypeError(f"an image is a {type(image).__name__}, not a tensor (3, height, width)")
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(f"an image has the shape {tuple(image.shape)}, not (3, height, width)")
    if not image.is_floating_point():
        raise TypeError(f"an image is {image.dtype}, and the model takes floats from 0 to 1")
    return image
