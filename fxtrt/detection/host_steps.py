"""Declare the seam between a detector's core and the two host steps around it.

The core is one graph of fixed shapes: from a padded batch of images to padded detections, for any
number and any size of images in a range. What comes before it (a list of images becomes a batch)
and after it (detections are cut to their counts) is Python that runs for each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = [
    "CallSteps",
    "HostSteps",
    "Prepared",
    "TooManyCandidates",
    "for_inference",
    "keeps_methods",
    "unchanged",
]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The result of the step before the core.

    inputs:  the positional arguments of the core.
    context: what the step after the core needs to know of the call.
    """

    inputs: tuple[Tensor, ...]
    context: Any


class CallSteps(Protocol):
    """The steps before and after a detector's core, as far as calls need them."""

    def before(self, *args: Any) -> Prepared:
        """Turn the positional arguments of the detector into those of the core, without a wait.

        Any exception sends the call to the detector's own `forward`.
        """
        ...

    def after(self, outputs: Sequence[Tensor], context: Any) -> Any:
        """Turn what the core returns into what the detector returns, with one wait for the GPU.

        Raises:
            TooManyCandidates: the core's bound on candidates may have changed a result.
        """
        ...


class HostSteps(CallSteps, Protocol):
    """A detector's core, and the steps before and after it.

    core: a module whose children are those of the detector, under the same names. The first
          dimension of each of its inputs and outputs counts images, and nothing else in their
          shapes depends on how many there are: calls with more images than the core takes are
          cut into chunks.
    """

    core: torch.nn.Module

    def example(self, inputs: tuple[Tensor, ...], most_images: int) -> tuple[Tensor, ...]:
        """Return inputs to capture the core with: two images where more than one is allowed."""
        ...

    def dynamic_shapes(self, inputs: tuple[Tensor, ...], most_images: int) -> Any:
        """Return for each of the core's inputs a dict from dimensions to a `Dim`, or None.

        Each `Dim` needs a maximum, because TensorRT needs one.
        """
        ...


class TooManyCandidates(Exception):
    """More candidates are above the threshold than the core looks at, so a result may differ."""


def for_inference(core: torch.nn.Module, model: torch.nn.Module) -> torch.nn.Module:
    """Return `core` after its own modules left training mode, in which a module begins.

    Those that it shares with the model stay as they are.
    """
    shared = set(map(id, model.modules()))
    for module in core.modules():
        if id(module) not in shared:
            module.training = False
    return core


def unchanged(piece: Any, kind: type[Any], *methods: str) -> bool:
    """Return whether a core may do the work of `piece` itself, as a `kind` does it.

    The methods of these names must be those of `kind`, and hooks would never run.
    """
    hooked = isinstance(piece, torch.nn.Module) and (
        piece._forward_hooks or piece._forward_pre_hooks
    )
    return keeps_methods(piece, kind, *methods) and not hooked


def keeps_methods(piece: Any, kind: type[Any], *methods: str) -> bool:
    """Return whether `piece` is a `kind` whose methods of these names are those of `kind`.

    A subclass may override anything else, such as its losses.
    """
    return isinstance(piece, kind) and all(
        getattr(type(piece), name) is getattr(kind, name) and name not in vars(piece)
        for name in methods
    )
