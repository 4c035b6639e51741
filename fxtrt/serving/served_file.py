"""Opens a file that serves alone: its model for a server, after its example was answered well."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from ..ahead_of_time import warm_up
from ..artifact.alone import golden_of
from ..artifact.archive import ArtifactFile
from ..artifact.manifest import Manifest
from ..artifact.save_load import load
from ..artifact.verify import Verified, replay
from ..errors import ArtifactError
from ..graph.specs import Call, TensorSpec
from ..lowering.outcome import outcome_of
from ..numerics.compare import Difference
from ..serialization.typed_json import typed
from ..settings import Options
from .model_facts import device_of, images_at_once
from .pictures import Pictures
from .stacked import Stacked

__all__ = ["ServedFile", "open_file"]

_DETECTRON2_SIDES = (800, 1333)
"""What Detectron2's configs resize pictures to, unless they say otherwise."""
_MOST_ROWS = 32
"""The most images in a batch for a model that takes any number."""


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A loaded file, ready for a `Server`.

    model:     takes a list of images and returns a list of answers.
    max_batch: the most images that it takes at once.
    pictures:  makes its images of decoded pictures.
    example:   the images that it was compiled with.
    """

    model: nn.Module
    max_batch: int
    pictures: Pictures
    example: Sequence[Any]


def open_file(
    path: str | os.PathLike[str],
    *,
    verify: bool = True,
    rebuild: bool = False,
    **overrides: Unpack[Options],
) -> ServedFile:
    """Load a file that was saved with `weights=True`, answer its example, and warm it up.

    On a GPU, all slots then have CUDA graphs for each number of images of the example's size.

    Args:
        verify: whether the answer to the example must be the one in the file.
        rebuild: whether engines that do not run here are built again.
        overrides: fields of `Settings`, such as `slots`.

    Raises:
        ArtifactError: the file is damaged, or needs its model; its engines cannot run here; it
            answers its example otherwise than when it was saved; or it is no model of images.
        CallError: it does not take its own example.
        OSError: the file cannot be read.
    """
    loaded: Any = load(path, rebuild=rebuild, **overrides)
    found = replay(path, loaded)
    if verify and not found.agrees:
        raise ArtifactError(
            f"{path} answers its example otherwise than when it was saved: {_worst(found)}; fxtrt "
            f"verify shows all of it"
        )
    with ArtifactFile(Path(path)) as file:
        manifest = typed(file.manifest, Manifest, f"the manifest of {path}")
        call, _ = golden_of(file, manifest)
    steps = None if manifest["alone"] is None else manifest["alone"]["steps"]
    if steps is None:
        served = _stacked(path, loaded, call)
    elif steps.library == "detectron2":
        pictures = Pictures(takes="detectron2", channels="bgr", resize=_DETECTRON2_SIDES)
        served = ServedFile(loaded, images_at_once(loaded), pictures, call.args[0])
    else:
        pictures = Pictures(takes="torchvision")
        served = ServedFile(loaded, images_at_once(loaded), pictures, call.args[0])
    _warm_up(loaded, served)
    return served


def _worst(found: Verified) -> str:
    if found.form:
        return found.form
    wrong: list[Difference] = [one for one in found.differences if not one.agrees]
    worst = max(wrong, key=lambda one: one.largest)
    return (
        f"{worst.output} ({worst.count}) differs by {worst.largest:.2e}, and may by "
        f"{worst.tolerance:.0e}"
    )


def _stacked(path: str | os.PathLike[str], loaded: nn.Module, call: Call) -> ServedFile:
    """Return the file of a model that is called with one tensor (B, 3, H, W)."""
    batch = call.args[0] if len(call.args) == 1 and not call.kwargs else None
    is_images = isinstance(batch, Tensor) and batch.ndim == 4 and batch.shape[1] == 3
    if not isinstance(batch, Tensor) or not is_images or not batch.is_floating_point():
        raise ArtifactError(
            f"{path} is no model of images: it is called with other than one float tensor (B, 3, H,"
            f" W). Call what fxtrt.load returns, or give fxtrt.Server a function around it"
        )
    spec = _spec_of(loaded)
    if spec.low[0] > 1:
        raise ArtifactError(
            f"{path} takes {spec.low[0]} images or more at once, and a server must be able to "
            f"answer one: compile the model with an example of one image, or with dynamic_shapes"
        )
    height, width = spec.low[2], spec.low[3]
    is_static = (height, width) == spec.high[2:]
    pictures = Pictures(takes="tensor", resize=(height, width) if is_static else None)
    most = min(_MOST_ROWS, spec.high[0] or _MOST_ROWS)
    return ServedFile(Stacked(loaded).eval(), most, pictures, list(batch))


def _spec_of(loaded: nn.Module) -> TensorSpec:
    outcome = outcome_of(loaded)
    assert outcome is not None
    return outcome.captured.parts[0].specs[0]


def _warm_up(loaded: nn.Module, served: ServedFile) -> None:
    """Record the CUDA graphs of each number of images; on the CPU, slots are made when needed."""
    device = device_of(loaded)
    if device is None or device.type != "cuda":
        return
    first = served.example[0]
    for count in range(1, served.max_batch + 1):
        images: Any = [first] * count
        warm_up(loaded, (torch.stack(images) if isinstance(served.model, Stacked) else images,))
