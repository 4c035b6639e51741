"""Lends each request a slot: execution contexts, scratch memory and a CUDA stream of its own.

A call works on the caller's stream, which must not wait for others, and the slot goes from stream
to stream by events. Callers on the legacy default stream, which all threads share and on which
TensorRT synchronises more, get the slot's own stream; theirs waits for it, not the host.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch.utils import _pytree as pytree

from ..engines.base import Engine, ExecutionContext
from ..errors import EngineError, SlotTimeout
from ..forks import ForkLock, renew_after_fork

__all__ = ["Slot", "Slots", "keep_for", "one_at_a_time"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_LOOK_AGAIN = 0.1
"""Seconds after which a call that waits looks for a slot though nobody has woken it."""

one_at_a_time = ForkLock()
"""Held while contexts are made, which waits for the GPU, and while a CUDA graph is recorded, which
such waiting in another thread would end."""


class Slot:
    """What one request at a time works with.

    contexts: one for each engine; on a GPU they share one block of scratch memory, since a
              request's engines run one after the other.
    stream:   None where the engines are on no GPU of their own.
    reserved: whether a CUDA graph of the caller's has recorded this slot's memory.
    holder:   the loan that has the slot, if that names it; `returned`: when the last one ended.
    """

    def __init__(self, engines: Sequence[Engine], device: torch.device | None) -> None:
        self.device = device
        self.stream: Any = None
        self.reserved = False
        self.holder: weakref.ref[Loan] | None = None
        self.returned = 0
        self.caller = 0
        """The stream of the last caller; 0 is the default stream, whose work `stream` does."""
        self._at_work = False
        self._scratch: torch.Tensor | None = None
        self.contexts: dict[Engine, ExecutionContext] = {}
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

    @property
    def is_free(self) -> bool:
        """Whether no call has it, nor a CUDA graph of a caller's."""
        loan = None if self.holder is None else self.holder()
        return not self.reserved and (loan is None or loan.slot is not self)

    @contextmanager
    def other_contexts(self, engines: Sequence[Engine]) -> Iterator[dict[Engine, ExecutionContext]]:
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
        if self._at_work:
            # An exception arrived before its last work was marked: nothing tells when that ends.
            torch.cuda.synchronize(self.device)
        number = caller.cuda_stream
        stream = caller if number else self.stream
        # On the stream of the last caller too: another one may have got its number since.
        stream.wait_event(self._done)
        if self.caller != number:
            keep_for(stream, self._scratch)
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
        """Whether `stream` is not the current one, or its GPU not the current GPU."""
        return not number or torch.cuda.current_device() != stream.device.index


class Loan:
    """What a call may hold: a slot, the right to make one, or a place in the queue.

    Only the call's own frame holds it; all others know it by weak references. So where an
    exception arrives between two instructions, as KeyboardInterrupt does, and keeps the call from
    giving back what it holds, that is free when the frame is gone.
    """

    __slots__ = ("__weakref__", "makes", "slot", "turn")

    def __init__(self) -> None:
        self.slot: Slot | None = None
        self.makes = False
        self.turn: Any = None
        """A lock, while the call waits: it opens when the call shall look again."""


class Slots:
    """Up to `most` slots for a model's engines, made when first needed; safe from any thread.

    A forked child has none at first, but the one that the forking call is in.
    """

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
        self._all: list[Slot] = []
        self._makers: list[weakref.ref[Loan]] = []
        self._waiting: list[weakref.ref[Loan]] = []
        self._moments = itertools.count(1)
        self._held = threading.local()
        self._lock, self._taking_all = ForkLock(), ForkLock()
        renew_after_fork(self)

    @property
    def made(self) -> int:
        """How many slots there are by now."""
        return sum(not slot.reserved for slot in self._all)

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
        held = self._mine()
        if held is not None:
            return call(held)
        loan = Loan()
        try:
            try:
                return self._work(loan, self._take(loan), call)
            finally:
                self._end(loan)
        finally:
            # Again, where an exception has arrived in the midst of it.
            self._end(loan)

    def each(self, call: Callable[[Slot], Any]) -> None:
        """`call` with every slot, all of them made before; others wait meanwhile."""
        loans: list[Loan] = []
        # Two threads that each have some of the slots would wait for one another.
        with self._taking_all():
            try:
                while len(loans) < self.most:
                    loans.append(Loan())
                    if not self._take_new(loans[-1]):
                        loans.pop()
                for loan in loans:
                    if loan.slot is not None:
                        self._work(loan, loan.slot, call)
                    self._end(loan)
            finally:
                for loan in loans:
                    self._end(loan)

    def after_fork(self) -> None:
        """Forget the slots of threads that are not in this process."""
        mine = self._mine()
        self._all = [] if mine is None else [mine]
        self._makers, self._waiting = [], []

    def _mine(self) -> Slot | None:
        """The slot that this thread is in."""
        known: weakref.ref[Loan] | None = getattr(self._held, "loan", None)
        loan = None if known is None else known()
        return None if loan is None else loan.slot

    def _work(self, loan: Loan, slot: Slot, call: Callable[[Slot], _T]) -> _T:
        self._held.loan = weakref.ref(loan)
        return slot.work(call)

    def _take(self, loan: Loan) -> Slot:
        caller, capturing = self._caller()
        deadline = time.monotonic() + self._timeout
        while True:
            with self._lock():
                self._grant(loan, caller, capturing)
            if loan.makes:
                self._make(loan)
            if loan.slot is not None:
                return loan.slot
            if loan.turn is not None and not self._wait(loan, deadline):
                raise SlotTimeout(
                    f"none of the {self.most} slots became free in {self._timeout:g} s: set more "
                    f"`slots`, a longer `slot_timeout`, or call the model from fewer threads"
                )

    def _take_new(self, loan: Loan) -> bool:
        """Take a slot, rather a new one; False where memory allows no more."""
        with self._lock():
            self._let_make(loan)
        if not loan.makes:
            self._take(loan)
            return True
        self._make(loan)
        return loan.slot is not None

    def _caller(self) -> tuple[int, bool]:
        """The caller's stream, and whether it is recording a CUDA graph."""
        if self.device is None:
            return 0, False
        number = torch.cuda.current_stream(self.device).cuda_stream
        return number, torch.cuda.is_current_stream_capturing()

    def _grant(self, loan: Loan, caller: int, capturing: bool) -> None:
        """Give a call whose turn it is a slot, or the right to make one; else let it wait."""
        if self._waiting:
            self._waiting = [known for known in self._waiting if known() is not None]
        if not self._waiting or self._waiting[0]() is loan:
            slot = self._pick(caller, capturing)
            if slot is not None:
                self._lend(loan, slot)
            elif not capturing:
                self._let_make(loan)
            elif not self.made:
                raise EngineError(
                    "a CUDA graph is being captured, and the model has no slot for it yet: "
                    "call the model once before, with inputs of the same shapes"
                )
        if loan.makes or loan.slot is not None:
            self._leave(loan)
        elif loan.turn is None:
            loan.turn = threading.Lock()
            loan.turn.acquire()
            self._waiting.append(weakref.ref(loan))

    def _lend(self, loan: Loan, slot: Slot) -> None:
        # In this order: the slot is lent once the loan names it.
        slot.holder = weakref.ref(loan)
        loan.slot = slot

    def _let_make(self, loan: Loan) -> None:
        if self._have() < self.most:
            self._makers = [*filter(_makes, self._makers), weakref.ref(loan)]
            loan.makes = True

    def _pick(self, caller: int, capturing: bool) -> Slot | None:
        """A free slot, rather one whose last work was the same caller's: it waits for nothing else.

        None where another one can still be made, or none is free.
        """
        same: Slot | None = None
        oldest: Slot | None = None
        for slot in self._all:
            if not slot.is_free:
                continue
            if capturing or slot.caller == caller:
                same = slot if same is None or slot.returned > same.returned else same
            elif oldest is None or slot.returned < oldest.returned:
                oldest = slot
        if same is not None or oldest is None:
            return same
        return None if self._have() < self.most else oldest

    def _have(self) -> int:
        """The slots that there are, and those that are being made."""
        return self.made + sum(map(_makes, self._makers))

    def _make(self, loan: Loan) -> None:
        """A new slot for a call that may make one; none where memory allows no more."""
        try:
            with one_at_a_time():
                slot = Slot(self.engines, self.device)
        except BaseException as error:
            with self._lock():
                loan.makes = False
                others = self._have()
                limited = others > 0 and isinstance(
                    error, (EngineError, torch.cuda.OutOfMemoryError)
                )
                if limited:
                    self.most = others
                self._wake()
            if not limited:
                raise
            log.warning("there is memory for %d slots only: %s", self.most, error)
            return
        with self._lock():
            self._lend(loan, slot)
            self._all.append(slot)
            loan.makes = False

    def _wait(self, loan: Loan, deadline: float) -> bool:
        """Wait until a call shall look again; False where its time is over."""
        left = deadline - time.monotonic()
        # Whoever was to wake it may have been interrupted: it looks by itself now and then.
        if left > 0:
            loan.turn.acquire(timeout=min(left, _LOOK_AGAIN))
        return left > 0

    def _end(self, loan: Loan) -> None:
        """Give back what a call holds; nothing where it holds nothing."""
        if loan.slot is None and not loan.makes and loan.turn is None:
            return
        with self._lock():
            if loan.slot is not None:
                loan.slot.returned = next(self._moments)
                loan.slot = None
            loan.makes = False
            self._leave(loan)

    def _leave(self, loan: Loan) -> None:
        """Take a call out of the queue, and let the first in it look for a slot."""
        if loan.turn is not None:
            self._waiting = [known for known in self._waiting if known() not in (None, loan)]
            loan.turn = None
        self._wake()

    def _wake(self) -> None:
        for known in self._waiting:
            first = known()
            if first is not None:
                if first.turn is not None and first.turn.locked():
                    first.turn.release()
                return


def _makes(known: weakref.ref[Loan]) -> bool:
    loan = known()
    return loan is not None and loan.makes


def scratch_bytes(engines: Sequence[Engine]) -> int:
    """The scratch memory of engines that run one after the other."""
    return max((engine.scratch_bytes for engine in engines), default=0)


def keep_for(stream: Any, tensors: Any) -> None:
    """Let the memory of the tensors in a pytree go only when `stream` is done with them."""
    for leaf in pytree.tree_leaves(tensors):
        if isinstance(leaf, torch.Tensor) and leaf.is_cuda:
            leaf.record_stream(stream)
