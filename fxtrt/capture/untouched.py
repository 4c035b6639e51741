"""Undoes what running a model changes: tensors, attributes, random state and torch's modes."""

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
    """Undo, at the end of the block, all that it changes in `roots` and in torch's modes.

    In a model, or in its inputs, these are the values and version counters of all tensors,
    the values of arrays, attributes of modules and other objects, and the elements of containers.
    Besides, these are the random states of Python, NumPy and torch, and the grad mode.

    No other thread may use the model meanwhile, since its changes would be undone as well.
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
    """Undo the changes of the block to random states and to the grad mode."""
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
    """Holds the original values of tensors, arrays and generators."""

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
            torch.cuda.synchronize()  # The model may have used its own streams.
        for storage, memory in self._memory:
            if storage.nbytes() != memory.nbytes():
                storage.resize_(memory.nbytes())
            if not torch.equal(_bytes(_on_host(storage)), _bytes(memory)):
                storage.copy_(memory)
        for tensor in self._tensors:
            tensor.restore()


class _Tensor:
    """Holds the state of a tensor apart from its storage: shape, strides and version."""

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
            # Guards compare the version. With its old values the tensor counts as unwritten.
            torch._C._autograd._unsafe_set_version_counter((tensor,), (self._version,))


def _on_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return a copy in the memory of the host."""
    if storage.device.type == "cpu":
        return clone_storage(storage)
    copy: torch.UntypedStorage = storage.cpu()  # type: ignore[no-untyped-call]  # torch's
    return copy


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
