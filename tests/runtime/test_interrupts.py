"""No slot is lost to an exception that arrives anywhere, nor to a fork in the midst of calls."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_engine import FakeEngine
from gpu_model import FakeEvent, FakeGpu, FakeStream

import fxtrt
from fxtrt.errors import SlotTimeout
from fxtrt.runtime import cuda_graphs
from fxtrt.runtime.slot import Slot
from fxtrt.runtime.slots import Slots


class Interrupt(BaseException):
    """What arrives from elsewhere, as KeyboardInterrupt does."""


@pytest.fixture(autouse=True)
def quick_switches() -> Iterator[None]:
    """Threads interrupt each other often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def assert_whole(slots: Slots) -> None:
    """No call holds anything, and every slot can still be had."""
    assert [slot.is_free for slot in slots._all] == [True] * slots.most
    assert slots._waiting == []
    seen: list[Slot] = []
    slots.each(seen.append)
    assert len(set(map(id, seen))) == slots.most


class Worker(threading.Thread):
    """Calls in a loop, whatever interrupts it, until it is told to stop."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.stopped = False
        self.ready = False
        self.interrupts = self.calls = self.timeouts = 0

    def run(self) -> None:
        while not self.stopped:
            try:
                # Here the interrupt that may arrive from now on is caught.
                self.ready = True
                self._loop()
            except Interrupt:
                self.interrupts += 1

    def _loop(self) -> None:
        while not self.stopped:
            try:
                self.call()
            except SlotTimeout:
                self.timeouts += 1
            self.calls += 1

    def interrupt(self) -> None:
        """Interrupt the thread where it is, unless the last interrupt is still on its way."""
        if self.ready:
            self.ready = False
            assert self.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(Interrupt)
            )


def interrupt_at_random(workers: list[Worker], times: int) -> None:
    for worker in workers:
        worker.start()
    draw = random.Random(0)
    for _ in range(times):
        draw.choice(workers).interrupt()
        time.sleep(draw.random() * 2e-4)
    deadline = time.monotonic() + 10
    while not all(worker.ready for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.001)
    stop(workers)
    assert sum(worker.interrupts for worker in workers) > times / 20


def stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stopped = True
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


@pytest.mark.parametrize("most", [1, 3])
def test_interrupted_calls_lose_no_slot(most: int) -> None:
    """Four threads, so that calls are interrupted while they make a slot, wait, work and end."""
    slots = Slots([FakeEngine(None)], most=most, timeout=5)
    inside: set[int] = set()

    def work(slot: Slot) -> None:
        thread = threading.get_ident()
        assert slot.holder is not None
        assert not slot.is_free
        for _ in range(5):
            inside.add(thread)

    workers = [Worker(lambda: slots.run(work)) for _ in range(4)]
    interrupt_at_random(workers, 4000)
    assert [worker.timeouts for worker in workers] == [0] * 4
    slots.each(lambda slot: None)
    assert_whole(slots)


def test_two_calls_are_never_in_one_slot() -> None:
    slots = Slots([FakeEngine(None)], most=2, timeout=5)
    users: dict[int, int] = {}
    wrong: list[int] = []

    def work(slot: Slot) -> None:
        # A mark of one thread is never seen by another before the first one's call has ended.
        mine = users[id(slot)] = threading.get_ident()
        for _ in range(20):
            if users[id(slot)] != mine:
                wrong.append(mine)

    interrupt_at_random([Worker(lambda: slots.run(work)) for _ in range(4)], 2000)
    assert wrong == []


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no interval timers")
def test_signals_lose_no_slot() -> None:
    """KeyboardInterrupt and signal handlers that raise reach the main thread."""
    slots = Slots([FakeEngine(None)], most=2, timeout=5)
    slots.each(lambda slot: None)
    armed, caught = False, 0

    def handler(number: int, frame: Any) -> None:
        if armed:
            raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-3, 3e-4)
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                armed = True
                for _ in range(100):
                    slots.run(lambda slot: None)
                armed = False
            except Interrupt:
                armed = False
                caught += 1
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught > 50
    assert_whole(slots)


def test_a_kept_traceback_keeps_no_slot() -> None:
    slots = Slots([FakeEngine(None)], timeout=0.05)
    kept: list[BaseException] = []
    for _ in range(3):
        try:
            slots.run(lambda slot: 1 // 0)
        except ZeroDivisionError as error:
            kept.append(error)
    assert_whole(slots)


def test_work_that_was_not_marked_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call may be on another stream, and would find the scratch memory in use."""
    gpu = FakeGpu(monkeypatch)
    waits: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    slots = Slots([FakeEngine(gpu)])
    lane = gpu.new_stream()
    record = FakeEvent.record

    def interrupted(event: FakeEvent, stream: FakeStream) -> None:
        monkeypatch.setattr(FakeEvent, "record", record)
        raise Interrupt

    with gpu.stream(lane):
        slots.run(lambda slot: None)
        monkeypatch.setattr(FakeEvent, "record", interrupted)
        with pytest.raises(Interrupt):
            slots.run(lambda slot: None)
    assert waits == []
    with gpu.stream(gpu.new_stream()):
        for _ in range(2):
            slots.run(lambda slot: None)
    assert waits == [slots.device]


@pytest.mark.parametrize("at", ["capture_begin", "work", "capture_end"])
def test_an_interrupted_recording_ends(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its stream would go on recording, and every later call in the slot would fail."""
    done: list[str] = []

    def step(name: str) -> Callable[..., list[object]]:
        def run(*args: object, **kwargs: object) -> list[object]:
            done.append(name)
            if name == at:
                raise Interrupt
            return []

        return run

    graph = SimpleNamespace(capture_begin=step("capture_begin"), capture_end=step("capture_end"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    abandoned: list[object] = []
    monkeypatch.setattr(cuda_graphs, "_abandon", lambda *args: abandoned.extend(args))
    with pytest.raises(Interrupt):
        cuda_graphs._capture(step("work"), [], "pool")
    assert done[-1] == at
    assert abandoned == [graph, "pool"]


def in_child(call: Callable[[], bool]) -> int:
    """The child that calls, and ends with 0 if that gives True."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if call() else 2
        finally:
            os._exit(code)
    return child


def codes(children: list[int]) -> list[int]:
    """How children ended; those that hang are ended."""
    ended = dict.fromkeys(children, -1)
    deadline = time.monotonic() + 30
    while -1 in ended.values() and time.monotonic() < deadline:
        for child in [child for child, code in ended.items() if code == -1]:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    for child in [child for child, code in ended.items() if code == -1]:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return list(ended.values())


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@needs_fork
@may_fork
def test_children_of_a_fork_during_calls_call_too() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    x, other = torch.randn(4, 8), torch.randn(5, 8)
    with torch.no_grad():
        fast = fxtrt.compile(model.eval(), (x,), engine="reference", slots=2, slot_timeout=5)
        expected, expected_other = model(x), model(other)

        def is_right() -> bool:
            with torch.no_grad():
                return torch.allclose(fast(x), expected, atol=1e-5) and torch.allclose(
                    fast(other), expected_other, atol=1e-5
                )

        workers = [Worker(is_right) for _ in range(4)]
        for worker in workers:
            worker.start()
        children = []
        for _ in range(24):
            time.sleep(0.004)
            children.append(in_child(is_right))
        ended = codes(children)
        stop(workers)
        assert is_right()
    assert ended == [0] * 24
    assert all(worker.calls for worker in workers)


@needs_fork
@may_fork
def test_a_call_that_forks_goes_on_in_both() -> None:
    slots = Slots([FakeEngine(None)], most=2, timeout=1)
    release = threading.Event()
    holds = threading.Event()

    def hold(slot: Slot) -> None:
        holds.set()
        release.wait(10)

    other = threading.Thread(target=slots.run, args=(hold,))
    other.start()
    holds.wait(10)

    def goes_on(slot: Slot) -> bool:
        same = slots.run(lambda inner: inner is slot)
        seen: list[Slot] = []
        thread = threading.Thread(target=slots.run, args=(seen.append,))
        thread.start()
        thread.join(10)
        return same and len(seen) == 1 and slot not in seen

    children = [slots.run(lambda slot: in_child(lambda: goes_on(slot))) for _ in range(3)]
    assert codes(children) == [0] * 3
    release.set()
    other.join(10)
    assert_whole(slots)
