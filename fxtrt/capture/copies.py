"""Copies arguments, either with their sharing of tensors and memory or without any."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

__all__ = ["clone_storage", "copied", "distinct", "memory_of"]

T = TypeVar("T")


def copied(values: T) -> T:
    """Return a copy in new memory, in which the same tensors are identical or share memory."""
    tensors: dict[int, torch.Tensor] = {}
    storages: dict[int, torch.UntypedStorage] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in tensors:
            tensors[id(tensor)] = _copy(tensor, storages)
        return tensors[id(tensor)]

    return _map(copy, values)


def distinct(values: T, others: Iterable[torch.Tensor] = ()) -> T:
    """Return a copy with a new tensor for each leaf, none of which shares memory with another.

    If one tensor is passed twice, torch.export assumes that every call passes it twice. It also
    marks the tensors that it is given, and a second export would obey the marks of the first.

    Args:
        others: tensors, such as weights, with which no leaf may share memory either.
    """
    taken = {memory_of(tensor) for tensor in others}

    def separate(tensor: torch.Tensor) -> torch.Tensor:
        memory = memory_of(tensor)
        if memory is None or memory not in taken:
            taken.add(memory)
            return tensor.detach()
        return _copy(tensor, {})

    return _map(separate, values)


def memory_of(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Return the address of a tensor's storage and that of its end, or None if it has no memory."""
    try:
        storage = tensor.untyped_storage()
        start, size = storage.data_ptr(), storage.nbytes()
    except (NotImplementedError, RuntimeError):
        return None  # Sparse, fake and functional tensors have no storage.
    return (start, start + size) if start and size else None


def clone_storage(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return a copy of the bytes in new memory of the same device."""
    clone: torch.UntypedStorage = storage.clone()  # type: ignore[no-untyped-call]  # torch's
    return clone


def _map(function: Any, values: T) -> T:
    result: T = pytree.tree_map_only(torch.Tensor, function, values)
    return result


def _copy(tensor: torch.Tensor, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    """Return a copy with the same strides, in the copy of its storage.

    Args:
        storages: copied storages by the address of the original; a missing one is added.
    """
    memory = memory_of(tensor)
    is_plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if memory is None or not is_plain or tensor.is_conj() or tensor.is_neg():
        return tensor.detach().clone()
    if memory[0] not in storages:
        storages[memory[0]] = clone_storage(tensor.untyped_storage())
    empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    place = tensor.storage_offset(), tensor.shape, tensor.stride()
    return empty.set_(storages[memory[0]], *place)
