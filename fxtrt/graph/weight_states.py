"""Detect whether weights have changed since they were frozen into engines."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch._compile import _disable_dynamo
from torch.fx import GraphModule
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from ..forks import ForkLock
from .aliases import Aliases
from .weights import attribute

__all__ = ["Snapshot", "State", "checksum", "live_weights", "states"]

State = tuple[int, int]
_VERSION: Callable[[torch.Tensor], int] = operator.attrgetter("_version")
_WORD = 8
"""The bytes of an int64, in which checksums are computed."""
_COLUMNS = 1024
"""The columns of the matrix whose sums make a checksum."""


class Snapshot:
    """The states of some tensors at one time.

    A write through PyTorch raises the version of its tensor. Optimizers with `fused=True`, or with
    kernels of their own, do not raise it, so the steps of all optimizers are watched too. With
    `check="contents"`, each call also compares checksums, which change with writes through NumPy,
    shared memory, `tensor.data` and other libraries.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], check: str = "versions") -> None:
        self._states = states(tensors)
        self._storages = set(_storages(tensors))
        self._stepped: set[int] = set()
        _OPTIMIZER_STEPS.watch(self)
        self._checksums = [checksum(t) for t in tensors] if check == "contents" else None

    def holds(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Return whether `tensors`, the same ones in the same order, are unchanged."""
        if self._stepped or states(tensors) != self._states:
            return False
        return self._checksums is None or _is_capturing() or not self._differing(tensors)

    def changed(self, tensors: Sequence[torch.Tensor]) -> int | None:
        """Return the position of the first tensor that has changed, or None."""
        for i, (tensor, before) in enumerate(zip(tensors, self._states, strict=True)):
            if states([tensor]) != [before] or self._stepped.intersection(_storages([tensor])):
                return i
        return None if self._checksums is None else self._differing(tensors)[0]

    def step(self, storages: Iterable[int]) -> None:
        """Record that an optimizer has written to these storages."""
        self._stepped |= self._storages.intersection(storages)

    def _differing(self, tensors: Sequence[torch.Tensor]) -> list[int]:
        """Return the positions of the tensors whose checksums have changed."""
        assert self._checksums is not None
        if not tensors:
            return []
        devices = {tensor.device for tensor in tensors}
        found: list[int] = []
        for device in devices:
            # There is one comparison for each device, because reading a number waits for the GPU.
            at = [i for i, tensor in enumerate(tensors) if tensor.device == device]
            now = torch.stack([checksum(tensors[i]) for i in at])
            before = torch.stack([self._checksums[i].to(device) for i in at])
            found += [at[i] for i in (now != before).any(1).nonzero().flatten().tolist()]
        return sorted(found)


class _OptimizerSteps:
    """Tells the snapshots of a tensor that an optimizer has taken a step with it."""

    def __init__(self) -> None:
        self._snapshots: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._lock = ForkLock()
        register_optimizer_step_post_hook(self)

    def watch(self, snapshot: Snapshot) -> None:
        with self._lock():
            self._snapshots.add(snapshot)

    @_disable_dynamo
    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        with self._lock():
            snapshots = list(self._snapshots)
        if snapshots:
            groups = optimizer.param_groups
            stepped = [p for group in groups for p in group["params"] if _may_step(p)]
            storages = _storages(stepped)
            for snapshot in snapshots:
                snapshot.step(storages)


_OPTIMIZER_STEPS = _OptimizerSteps()


def states(tensors: Sequence[torch.Tensor]) -> list[State]:
    """Return the address and version of each tensor.

    They change when a tensor is written to, or is given other memory (`tensor.data = ...`). Writes
    through `tensor.data`, and to tensors made under `inference_mode`, change neither.
    """
    # This runs at every call for every weight, and `map` is several times as fast as a loop.
    try:
        versions = list(map(_VERSION, tensors))
    except RuntimeError:  # Inference tensors have no version.
        versions = [-1 if t.is_inference() else t._version for t in tensors]
    return list(zip(map(torch.Tensor.data_ptr, tensors), versions, strict=True))


def live_weights(graph: GraphModule, weights: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
    """Return the weights that a graph writes to, and so never freezes, by their ids."""
    aliases = Aliases(graph)
    written = {
        attribute(graph, node).untyped_storage()._cdata
        for node in graph.graph.find_nodes(op="get_attr")
        if aliases.is_written(node)
    }
    dense = [tensor for tensor in weights if tensor.layout == torch.strided]
    return {id(t): t for t in dense if t.untyped_storage()._cdata in written}


def checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Return two int64 numbers, on the tensor's device, that depend on all bytes of its elements.

    The bytes are read as a matrix of words. Its sums by rows and by columns are weighted by their
    positions, so that swapped elements change the checksum too. Sparse and quantized tensors, which
    have no plain memory, give zeros: only their versions are compared.
    """
    if tensor.layout != torch.strided or tensor.is_quantized:
        return torch.zeros(2, dtype=torch.int64, device=tensor.device)
    # Lazy conjugates and negatives have no bytes of their own before they are resolved.
    plain = tensor.detach().resolve_conj().resolve_neg()
    data = plain.contiguous().flatten().view(torch.uint8)
    whole = data.numel() // (_WORD * _COLUMNS) * (_WORD * _COLUMNS)
    rest = torch.nn.functional.pad(data[whole:], (0, _WORD * _COLUMNS - (data.numel() - whole)))
    sums = torch.zeros(2, dtype=torch.int64, device=data.device)
    for part in (data[:whole], rest):
        if part.numel():
            words = part.clone() if part.data_ptr() % _WORD else part
            matrix = words.view(torch.int64).view(-1, _COLUMNS)
            sums += torch.stack([_mixed(matrix.sum(0)), _mixed(matrix.sum(1))])
            sums *= 3
    return sums


def _mixed(numbers: torch.Tensor) -> torch.Tensor:
    """Return the sum of numbers times odd weights that differ from position to position."""
    positions = torch.arange(len(numbers), device=numbers.device)
    return (numbers * (positions * 0x9E3779B97F4A7C1 | 1)).sum()


def _storages(tensors: Iterable[torch.Tensor]) -> list[int]:
    """Return the storages of dense tensors, each as a number that tensors in one memory share."""
    dense = (tensor for tensor in tensors if tensor.layout == torch.strided)
    return [tensor.untyped_storage()._cdata for tensor in dense]


def _may_step(parameter: torch.Tensor) -> bool:
    """Return whether an optimizer would write to a parameter; it skips those without a gradient."""
    return parameter.requires_grad or parameter.grad is not None


def _is_capturing() -> bool:
    """Return whether the caller captures a CUDA graph, during which no number can be read."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
