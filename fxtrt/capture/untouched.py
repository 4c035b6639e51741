"""Runs a model, and leaves everything behind as it was before."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .attributes import Attributes
from .copies import clone_storage, memory_of
from .reachable import reachable

__all__ = ["untouched", "untouched_modes"]


@contextmanager
def untouched(*roots: Any) -> Iterator[None]:
    """Undo, at the end of the block, whatever it changes of `roots` and of torch's modes.

    Of a model, or of the values that it is given, that is: the values of all tensors and arrays,
    parameters and buffers among them, with the counts of writes to them; attributes of modules and
    of other objects; and what is in lists, dictionaries and sets. Outside of them it is the random
    state of Python, NumPy and torch, and the grad mode.

    Nobody else may use the model meanwhile: their changes would be undone as well.
    """
    held = list(reachable(*roots))
    attributes, values = Attributes(held), _Values(held)
    with untouched_modes():
        try:
            yield
        finally:
            attributes.restore()
            values.restore()


@contextmanager
def untouched_modes() -> Iterator[None]:
    """Undo what the block changes of random states and of the grad mode."""
    gradients, python, numpy = torch.is_grad_enabled(), random.getstate(), np.random.get_state()
    has_gpus = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's
    gpus = range(torch.cuda.device_count()) if has_gpus else ()
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        torch.set_grad_enabled(gradients)
        random.setstate(python)
        np.random.set_state(numpy)


class _Values:
    """Tensors, arrays and generators, and how they were."""

    def __init__(self, held: Sequence[Any]) -> None:
        tensors = [value for value in held if isinstance(value, torch.Tensor)]
        self._tensors = [_Tensor(tensor) for tensor in tensors if memory_of(tensor)]
        storages = {one.storage.data_ptr(): one.storage for one in self._tensors}
        self._memory = [(storage, _on_host(storage)) for storage in storages.values()]
        self._arrays = [(value, value.copy()) for value in held if isinstance(value, np.ndarray)]
        self._generators = [
            (value, value.get_state()) for value in held if isinstance(value, torch.Generator)
        ]

    def restore(self) -> None:
        for generator, state in self._generators:
            generator.set_state(state)
        for array, before in self._arrays:
            if array.tobytes() != before.tobytes():
                array[...] = before
        if any(storage.device.type == "cuda" for storage, _ in self._memory):
            torch.cuda.synchronize()  # The model may have run on streams of its own.
        for storage, memory in self._memory:
            if storage.nbytes() != memory.nbytes():
                storage.resize_(memory.nbytes())
            if not torch.equal(_bytes(_on_host(storage)), _bytes(memory)):
                storage.copy_(memory)
        for tensor in self._tensors:
            tensor.restore()


class _Tensor:
    """A tensor's own state, apart from the values in its memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._alias = tensor.detach()
        self._version = None if tensor.is_inference() else tensor._version
        self.storage = tensor.untyped_storage()

    def restore(self) -> None:
        alias, tensor = self._alias, self._tensor
        now = tensor.data_ptr(), tensor.shape, tensor.stride()
        if now != (alias.data_ptr(), alias.shape, alias.stride()):
            tensor.data = alias
        if self._version is not None and tensor._version != self._version:
            # A guard compares the count: what has its old values was not written to.
            torch._C._autograd._unsafe_set_version_counter((tensor,), (self._version,))


def _on_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """A copy that takes no memory of the GPU's."""
    if storage.device.type == "cpu":
        return clone_storage(storage)
    copy: torch.UntypedStorage = storage.cpu()  # type: ignore[no-untyped-call]  # torch's
    return copy


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
