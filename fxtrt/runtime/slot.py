"""Holds what one call works with: execution contexts, scratch memory, a stream and CUDA graphs.

A call works on the caller's stream, which must not wait for others, and events order the calls
that use a slot on different streams. Callers on the legacy default stream, which all threads share
and on which TensorRT synchronises more, get the slot's own stream; the host does not wait for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from ..engines.base import Engine, ExecutionContext
from ..engines.scratch import Scratch
from ..forks import ForkLock

__all__ = ["Loan", "Slot", "keep_for", "one_at_a_time", "scratch_bytes"]

_T = TypeVar("_T")

one_at_a_time = ForkLock()
"""A lock that is held while contexts are made, which waits for the GPU, and while a CUDA graph is
recorded, which such waiting in another thread would end."""


class Slot:
    """The resources that one request at a time works with.

    contexts: one for each engine; they share scratch memory, as the engines run one by one.
    stream:   the slot's own stream, or None if the engines have no GPU of their own.
    reserved: whether a CUDA graph of the caller has recorded this slot's memory.
    holder:   the last loan; it has the slot if it names the slot.
    returned: the moment when the last loan ended.
    """

    def __init__(self, engines: Sequence[Engine], device: torch.device | None) -> None:
        self.device = device
        self.stream: Any = None
        self.reserved = False
        self.holder: weakref.ref[Loan] | None = None
        self.returned = 0
        self.caller = 0
        """The stream of the last caller; 0 is the default stream, and `stream` does its work."""
        self._at_work = False
        self._graph_pool: Any = None
        self._scratch: Scratch | None = None
        self.contexts: dict[Engine, ExecutionContext] = {}
        if device is None:
            self._make_contexts(engines)
            return
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self._done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
        size = scratch_bytes(engine for engine in engines if not engine.scratch_by_shape)
        with torch.cuda.stream(self.stream):
            self._scratch = Scratch(device, size)
            self._make_contexts(engines)
        self._done.record(self.stream)

    @property
    def is_free(self) -> bool:
        """Return whether neither a call nor a CUDA graph of a caller has the slot."""
        loan = None if self.holder is None else self.holder()
        return not self.reserved and (loan is None or loan.slot is not self)

    @property
    def scratch_bytes(self) -> int:
        """Return the scratch memory that the slot has by now."""
        return 0 if self._scratch is None else self._scratch.block.nbytes

    def graph_pool(self) -> Any:
        """Return the memory that all CUDA graphs of this slot share.

        They run one after the other, and each has its outputs copied before the next one runs.
        """
        if self._graph_pool is None:
            self._graph_pool = torch.cuda.graph_pool_handle()
        return self._graph_pool

    @contextmanager
    def other_contexts(self, engines: Sequence[Engine]) -> Iterator[dict[Engine, ExecutionContext]]:
        """Give these engines new contexts while the block runs, on the same scratch memory."""
        mine, self.contexts = self.contexts, dict(self.contexts)
        try:
            self._make_contexts(engines)
            yield self.contexts
        finally:
            self.contexts = mine

    def _make_contexts(self, engines: Sequence[Engine]) -> None:
        for engine in engines:
            self.contexts[engine] = engine.context(self._scratch)

    def work(self, call: Callable[[Slot], _T]) -> _T:
        """Run `call` after the slot's earlier work and before what the caller does next.

        Tensors in the result may be used on the caller's stream.
        """
        if self.device is None:
            return call(self)
        caller = torch.cuda.current_stream(self.device)
        if torch.cuda.is_current_stream_capturing():
            # A caller that captures has waited for the GPU before, and must wait for no event now.
            self.reserved = True
            return call(self)
        if self._at_work:
            # An exception came before the last work was marked, so no event tells when it ends.
            torch.cuda.synchronize(self.device)
        number = caller.cuda_stream
        stream = caller if number else self.stream
        # Wait even if the caller's stream is unchanged: CUDA may have reused its handle.
        stream.wait_event(self._done)
        if self.caller != number:
            keep_for(stream, None if self._scratch is None else self._scratch.block)
            self.caller = number
        if not number:
            stream.wait_stream(caller)
        self._at_work = True
        try:
            with torch.cuda.stream(stream) if self._enters(stream, number) else nullcontext():
                result = call(self)
            if not number:
                keep_for(caller, result)
            return result
        finally:
            self._done.record(stream)
            self._at_work = False
            if not number:
                caller.wait_event(self._done)

    def _enters(self, stream: Any, number: int) -> bool:
        """Return whether `stream` must be made current, because it or its GPU is not."""
        return not number or torch.cuda.current_device() != stream.device.index


class Loan:
    """A call's hold on a slot, on the right to make one, or on a place in the queue.

    Only the call's own frame holds the loan; everything else has weak references to it. An
    exception such as KeyboardInterrupt may come between two instructions and keep the call from
    giving back what it holds: that is free as soon as the frame is gone.
    """

    __slots__ = ("__weakref__", "makes", "slot", "turn")

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.makes = False
        self.turn: Any = None
        """A lock while the call waits; it is released when the call is to look again."""


def scratch_bytes(engines: Iterable[Engine]) -> int:
    """Return the most scratch memory of engines that run one after the other."""
    return max((engine.scratch_bytes for engine in engines), default=0)


def keep_for(stream: Any, tensors: Any) -> None:
    """Keep the memory of the tensors in a pytree until `stream` is done with them."""
    for leaf in pytree.tree_leaves(tensors):
        if isinstance(leaf, torch.Tensor) and leaf.is_cuda:
            leaf.record_stream(stream)
