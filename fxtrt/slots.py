"""Lends each request a slot: execution contexts, scratch memory and a CUDA stream of its own.

A call works on the caller's stream, which must not wait for others, and the slot goes from stream
to stream by events. Callers on the legacy default stream, which all threads share and on which
TensorRT synchronises more, get the slot's own stream; theirs waits for it, not the host.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from .engines.base import Context, Engine
from .errors import EngineError, SlotTimeout

__all__ = ["Slot", "Slots", "keep_for", "one_at_a_time"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

one_at_a_time = threading.Lock()
"""Held while contexts are made, which waits for the GPU, and while a CUDA graph is recorded, which
such waiting in another thread would end."""


class Slot:
    """What one request at a time works with.

    contexts: one for each engine; on a GPU they share one block of scratch memory, since a
              request's engines run one after the other.
    stream:   None where the engines are on no GPU of their own.
    reserved: whether a CUDA graph of the caller's has recorded this slot's memory.
    """

    def __init__(self, engines: Sequence[Engine], device: torch.device | None) -> None:
        self.device = device
        self.stream: Any = None
        self.reserved = False
        self.caller = 0
        """The stream of the last caller; 0 is the default stream, whose work `stream` does."""
        self._scratch: torch.Tensor | None = None
        self.contexts: dict[Engine, Context] = {}
        if device is None:
            self._make_contexts(engines)
            return
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self._done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
        size = scratch_bytes(engines)
        with torch.cuda.stream(self.stream):
            self._scratch = torch.empty(size, dtype=torch.uint8, device=device)
            self._make_contexts(engines)
        self._done.record(self.stream)

    @contextmanager
    def other_contexts(self, engines: Sequence[Engine]) -> Iterator[dict[Engine, Context]]:
        """While the block runs, these engines have new contexts, on the same scratch memory."""
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
        """`call`, ordered after the work that the slot did before and before what the caller does
        next; tensors in its result may be used on the caller's stream.
        """
        if self.device is None:
            return call(self)
        caller = torch.cuda.current_stream(self.device)
        if torch.cuda.is_current_stream_capturing():
            # Whoever captures has waited for the GPU before, and must not wait for events now.
            self.reserved = True
            return call(self)
        number = caller.cuda_stream
        stream = caller if number else self.stream
        # On the stream of the last caller too: another one may have got its number since.
        stream.wait_event(self._done)
        if self.caller != number:
            keep_for(stream, self._scratch)
            self.caller = number
        if not number:
            stream.wait_stream(caller)
        try:
            with torch.cuda.stream(stream) if self._enters(stream, number) else nullcontext():
                result = call(self)
            if not number:
                keep_for(caller, result)
            return result
        finally:
            self._done.record(stream)
            if not number:
                caller.wait_event(self._done)

    def _enters(self, stream: Any, number: int) -> bool:
        """Whether `stream` is not the current one, or its GPU not the current GPU."""
        return not number or torch.cuda.current_device() != stream.device.index


class Slots:
    """Up to `most` slots for a model's engines, made when first needed; safe from any thread."""

    def __init__(self, engines: Sequence[Engine], most: int = 1, timeout: float = 60.0) -> None:
        """
        Args:
            engines: of all clusters.
            timeout: seconds that a request waits for a slot.
        """
        self.engines = tuple(engines)
        self.most = most
        devices = {engine.device for engine in engines if engine.device is not None}
        self.device = devices.pop() if devices else None
        self._timeout = timeout
        self._free: deque[Slot] = deque()
        self._reserved: list[Slot] = []
        self._waiting: deque[_Waiter] = deque()
        self._made = 0
        self._lock = threading.Lock()
        self._held = threading.local()
        self._taking_all = threading.Lock()

    @property
    def made(self) -> int:
        """How many slots there are by now."""
        return self._made

    @property
    def scratch_bytes(self) -> int:
        """The scratch memory of one slot: what the largest engine needs."""
        return scratch_bytes(self.engines)

    def run(self, call: Callable[[Slot], _T]) -> _T:
        """`call` with a slot. A call inside of `call`, on its thread, gets the same slot.

        Raises:
            SlotTimeout: no slot became free in time.
            EngineError: there is not enough memory for even one slot.
        """
        held: Slot | None = getattr(self._held, "slot", None)
        if held is not None:
            return call(held)
        return self._lend(self._take(), call)

    def each(self, call: Callable[[Slot], Any]) -> None:
        """`call` with every slot, all of them made before; others wait meanwhile."""
        taken: list[Slot] = []
        # Two threads that each have some of the slots would wait for one another.
        with self._taking_all:
            try:
                while len(taken) < self.most:
                    if (slot := self._take_new()) is not None:
                        taken.append(slot)
                while taken:
                    self._lend(taken.pop(), call)
            finally:
                for slot in taken:
                    self._give_back(slot)

    def _lend(self, slot: Slot, call: Callable[[Slot], _T]) -> _T:
        self._held.slot = slot
        try:
            return slot.work(call)
        finally:
            self._held.slot = None
            self._give_back(slot)

    def _take(self) -> Slot:
        caller, capturing = self._caller()
        deadline = time.monotonic() + self._timeout
        while True:
            waiter = None
            with self._lock:
                slot = None if self._waiting else self._pick(caller, capturing)
                if slot is not None:
                    return slot
                makes = self._made < self.most and not capturing
                if makes:
                    self._made += 1
                elif capturing and not self._made:
                    raise EngineError(
                        "a CUDA graph is being captured, and the model has no slot for it yet: "
                        "call the model once before, with inputs of the same shapes"
                    )
                else:
                    waiter = _Waiter()
                    self._waiting.append(waiter)
            slot = self._make() if waiter is None else self._wait(waiter, deadline)
            if slot is not None:
                return slot

    def _take_new(self) -> Slot | None:
        """A slot, rather a new one; None where memory allows no more."""
        with self._lock:
            makes = self._made < self.most
            self._made += makes
        return self._make() if makes else self._take()

    def _caller(self) -> tuple[int, bool]:
        """The caller's stream, and whether it is recording a CUDA graph."""
        if self.device is None:
            return 0, False
        number = torch.cuda.current_stream(self.device).cuda_stream
        return number, torch.cuda.is_current_stream_capturing()

    def _pick(self, caller: int, capturing: bool) -> Slot | None:
        """A free slot, rather one whose last work was the same caller's: it waits for nothing else.

        None where another one can still be made, or none is free.
        """
        if not self._free:
            return None
        if capturing:
            return self._free.pop()
        for slot in reversed(self._free):
            if slot.caller == caller:
                self._free.remove(slot)
                return slot
        return self._free.popleft() if self._made >= self.most else None

    def _make(self) -> Slot | None:
        """A new slot, which was counted before; None where memory allows no more than there are."""
        try:
            with one_at_a_time:
                return Slot(self.engines, self.device)
        except BaseException as error:
            with self._lock:
                self._made -= 1
                limited = self._made > 0 and isinstance(
                    error, (EngineError, torch.cuda.OutOfMemoryError)
                )
                if limited:
                    self.most = self._made
                self._wake()
            if not limited:
                raise
            log.warning("there is memory for %d slots only: %s", self.most, error)
            return None

    def _wait(self, waiter: _Waiter, deadline: float) -> Slot | None:
        """The slot that the waiter is given; None where it shall try again."""
        try:
            if waiter.ready.wait(max(0.0, deadline - time.monotonic())):
                return waiter.slot
        except BaseException:
            if not self._leave(waiter) and waiter.slot is not None:
                self._give_back(waiter.slot)
            raise
        if not self._leave(waiter):
            return waiter.slot
        raise SlotTimeout(
            f"none of the {self.most} slots became free in {self._timeout:g} s: "
            f"set more `slots`, a longer `slot_timeout`, or call the model from fewer threads"
        )

    def _leave(self, waiter: _Waiter) -> bool:
        """Stop waiting; False where it was just called."""
        with self._lock:
            if waiter.ready.is_set():
                return False
            self._waiting.remove(waiter)
            return True

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            if slot.reserved:
                # It stays the graph's for good, and another may take its place.
                self._reserved.append(slot)
                self._made -= 1
                self._wake()
            elif self._waiting:
                waiter = self._waiting.popleft()
                waiter.slot = slot
                waiter.ready.set()
            else:
                self._free.append(slot)

    def _wake(self) -> None:
        """Let the first that waits try again."""
        if self._waiting:
            self._waiting.popleft().ready.set()


class _Waiter:
    def __init__(self) -> None:
        self.ready = threading.Event()
        self.slot: Slot | None = None


def scratch_bytes(engines: Sequence[Engine]) -> int:
    """The scratch memory of engines that run one after the other."""
    return max((engine.scratch_bytes for engine in engines), default=0)


def keep_for(stream: Any, tensors: Any) -> None:
    """Let the memory of the tensors in a pytree go only when `stream` is done with them."""
    for leaf in pytree.tree_leaves(tensors):
        if isinstance(leaf, torch.Tensor) and leaf.is_cuda:
            leaf.record_stream(stream)
