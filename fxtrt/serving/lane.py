"""Runs a model on a worker's own CUDA stream, with images moved there and answers moved back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ServingError

__all__ = ["Lane", "written"]

Model = Callable[[list[Any]], Any]


class Lane:
    """The stream of one worker. On the CPU it has none, and nothing is moved."""

    def __init__(self, model: Model, device: torch.device | None, answers_on: str | None) -> None:
        """Take the device of `model`, and where its answers go; None leaves them as they are."""
        self._model = model
        self.device = device
        self._answers_on = answers_on
        self._stream: Any = None
        if device is not None and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's

    def run(self, images: Sequence[Any], ready: Sequence[Any]) -> list[Any]:
        """Return the answers, which are complete: the stream has finished.

        Args:
            ready: for each image the CUDA event after which its memory is written, or None.

        Raises:
            ServingError: the model gave another number of answers than there are images.
        """
        with torch.no_grad(), self._on_stream():
            for event in ready:
                if event is not None and self._stream is not None:
                    self._stream.wait_event(event)
            given = self._model([pytree.tree_map(self._moved, image) for image in images])
            answers = _one_for_each(given, len(images))
            if self._answers_on is not None:
                answers = [pytree.tree_map(self._returned, answer) for answer in answers]
        if self._stream is not None:
            self._stream.synchronize()
        return answers

    def _on_stream(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _moved(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or self._stream is None:
            return value
        if value.is_cuda:
            # The client may free the image while this stream still reads it.
            value.record_stream(self._stream)
            return value
        return value.to(self.device, non_blocking=True)

    def _returned(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self._answers_on, non_blocking=True)
        # Detectron2's Instances, for one, move their tensors themselves.
        return value.to(self._answers_on) if hasattr(value, "to") else value


def written(image: Any) -> Any:
    """Return a CUDA event after which the image's tensors are written; None for the CPU's."""
    tensors = [leaf for leaf in pytree.tree_leaves(image) if isinstance(leaf, Tensor)]
    devices = [tensor.device for tensor in tensors if tensor.is_cuda]
    if not devices:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
    event.record(torch.cuda.current_stream(devices[0]))
    return event


def _one_for_each(answers: Any, count: int) -> list[Any]:
    if not isinstance(answers, list | tuple | Tensor) or len(answers) != count:
        size = len(answers) if hasattr(answers, "__len__") else "no"
        raise ServingError(
            f"the model answered {count} images with {size} answers ({type(answers).__name__}): a "
            f"server's model takes a list of images and returns a list with one answer for each"
        )
    return list(answers)
