"""Lends each request a slot of its own, and lets it wait for one."""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from ..engines.base import Engine
from ..errors import EngineError, SlotTimeout
from ..forks import ForkLock, renew_after_fork
from .slot import Loan, Slot, one_at_a_time, scratch_bytes

__all__ = ["Slots"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_LOOK_AGAIN = 0.1
"""The seconds after which a waiting call looks for a slot even if nothing has woken it."""


class Slots:
    """Up to `most` slots for a model's engines, made when first needed; any thread may use them.

    A forked child begins with only the slot that the forking call is in, if it is in one.
    """

    def __init__(self, engines: Sequence[Engine], most: int = 1, timeout: float = 60.0) -> None:
        """Take the engines of all clusters; a request waits up to `timeout` seconds for a slot."""
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
        """Count the slots that exist by now."""
        return sum(not slot.reserved for slot in self._all)

    @property
    def scratch_bytes(self) -> int:
        """Return the most scratch memory of one slot: that of the largest engine."""
        return scratch_bytes(self.engines)

    @property
    def taken_bytes(self) -> int:
        """Return the scratch memory that all slots have by now."""
        return sum(slot.scratch_bytes for slot in self._all)

    def run(self, call: Callable[[Slot], _T]) -> _T:
        """Run `call` with a slot. A nested call on the same thread gets the same slot.

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
            # Once more, in case an exception has interrupted the first attempt.
            self._end(loan)

    def each(self, call: Callable[[Slot], Any]) -> None:
        """Make all slots, then run `call` with each of them; other calls wait meanwhile."""
        loans: list[Loan] = []
        # Two threads that each had some of the slots would wait for each other.
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
        """Return the slot that this thread is in, or None."""
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
        """Take a slot, if possible a new one; return False if memory allows no more."""
        with self._lock():
            self._let_make(loan)
        if not loan.makes:
            self._take(loan)
            return True
        self._make(loan)
        return loan.slot is not None

    def _caller(self) -> tuple[int, bool]:
        """Return the caller's stream, and whether it is recording a CUDA graph."""
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
        # The order matters: the slot is lent from the moment that the loan names it.
        slot.holder = weakref.ref(loan)
        loan.slot = slot

    def _let_make(self, loan: Loan) -> None:
        if self._have() < self.most:
            self._makers = [*filter(_makes, self._makers), weakref.ref(loan)]
            loan.makes = True

    def _pick(self, caller: int, capturing: bool) -> Slot | None:
        """Return a free slot, or None if none is free or another one can still be made.

        A slot whose last caller was the same is preferred, because it waits for no other stream.
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
        """Count the slots that exist or are being made."""
        return self.made + sum(map(_makes, self._makers))

    def _make(self, loan: Loan) -> None:
        """Make a slot for a call that may; if memory allows no more, make none."""
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
        """Wait until a call is to look again; return False if its time is over."""
        left = deadline - time.monotonic()
        # The call looks now and then by itself: what was to wake it may have been interrupted.
        if left > 0:
            loan.turn.acquire(timeout=min(left, _LOOK_AGAIN))
        return left > 0

    def _end(self, loan: Loan) -> None:
        """Give back what a call holds, if it holds anything."""
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
