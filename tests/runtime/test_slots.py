"""Slots bound concurrency, are fair, come back after errors, and are never in two works at once."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fake_engine import FakeEngine
from gpu_model import FakeGpu

import fxtrt
from fxtrt.engines.base import Engine
from fxtrt.errors import EngineError, SlotTimeout
from fxtrt.runtime.slot import Slot
from fxtrt.runtime.slots import Slots


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    return FakeGpu(monkeypatch)


def call(slots: Slots) -> None:
    for engine in slots.engines:
        slots.run(lambda slot, engine=engine: slot.contexts[engine].run([]))  # type: ignore[misc]  # mypy has no such lambda


def test_slots_are_made_when_needed_and_bound_concurrency() -> None:
    engine = FakeEngine(None)
    slots = Slots([engine], most=3)
    now, peak, lock = 0, 0, threading.Lock()

    def work(slot: Slot) -> None:
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        slot.contexts[engine].run([])
        with lock:
            now -= 1

    for _ in range(5):
        slots.run(work)
    assert slots.made == 1
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: slots.run(work), range(100)))
    assert peak == 3
    assert slots.made == len(engine.contexts) == 3


def test_waiting_is_first_come_first_served() -> None:
    slots = Slots([FakeEngine(None)])
    order: list[int] = []
    holds, release = threading.Event(), threading.Event()

    def hold(slot: Slot) -> None:
        holds.set()
        release.wait(10)

    threads = [threading.Thread(target=slots.run, args=(hold,))]
    threads[0].start()
    holds.wait(10)
    for number in range(6):
        work = lambda slot, number=number: order.append(number)  # noqa: E731  # one for each
        threads.append(threading.Thread(target=slots.run, args=(work,)))
        threads[-1].start()
        while len(slots._waiting) <= number:
            time.sleep(0.001)
    release.set()
    for thread in threads:
        thread.join(10)
    assert order == list(range(6))


def test_waiting_ends_with_a_clear_error_and_leaves_the_queue() -> None:
    slots = Slots([FakeEngine(None)], timeout=0.05)
    errors: list[Exception] = []

    def too_late() -> None:
        try:
            slots.run(lambda slot: None)
        except SlotTimeout as error:
            errors.append(error)

    def hold(slot: Slot) -> None:
        thread = threading.Thread(target=too_late)
        thread.start()
        thread.join(10)

    slots.run(hold)
    assert "none of the 1 slots became free in 0.05 s" in str(errors[0])
    assert not slots._waiting
    slots.run(lambda slot: None)


def test_a_call_may_wait_for_ever() -> None:
    slots = Slots([FakeEngine(None)], timeout=float("inf"))
    with ThreadPoolExecutor(4) as pool:
        waited = list(pool.map(lambda _: slots.run(lambda slot: time.sleep(1e-3)), range(50)))
    assert len(waited) == 50


def test_an_error_returns_the_slot_and_calls_inside_share_it() -> None:
    slots = Slots([FakeEngine(None)], timeout=0.05)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            slots.run(lambda slot: 1 // 0)
    assert slots.run(lambda outer: slots.run(lambda inner: inner is outer))


def test_too_little_memory_leaves_fewer_slots(caplog: pytest.LogCaptureFixture) -> None:
    slots = Slots([FakeEngine(None, most=2)], most=4, timeout=5)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: call(slots), range(50)))
    assert slots.made == slots.most == 2
    assert "memory for 2 slots only" in caplog.text
    caplog.clear()
    slots.each(lambda slot: None)
    none = Slots([FakeEngine(None, most=0)], most=4, timeout=5)
    for _ in range(2):
        with pytest.raises(EngineError, match="no memory"):
            call(none)


def test_every_slot_can_be_made_before_serving() -> None:
    slots = Slots([FakeEngine(None)], most=3)
    seen: list[Slot] = []
    slots.each(lambda slot: slots.run(seen.append))
    assert len(set(map(id, seen))) == slots.made == 3


@pytest.mark.parametrize("streams", [0, 1, 3, 8])
def test_work_in_a_slot_never_overlaps(streams: int, gpu: FakeGpu) -> None:
    """Threads on their own streams, or all on the default stream, and one stream for several."""
    engines = [FakeEngine(gpu), FakeEngine(gpu, 4096)]
    for engine in engines[1:]:
        engine.last = engines[0].last  # One scratch block for both.
    slots = Slots(engines, most=2)
    lanes = [gpu.new_stream() for _ in range(streams)]

    def request(number: int) -> None:
        stream = lanes[number % streams] if streams else gpu.current()
        with gpu.stream(stream):
            made = stream.work()

            def work(slot: Slot) -> None:
                assert gpu.current().follows(made), "the input may not be there yet"
                for engine in engines:
                    slot.contexts[engine].run([])

            slots.run(work)
            if not streams:
                moments = list(engines[0].last.values())
                assert any(map(stream.follows, moments)), "the output may not be there yet"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(request, range(200)))
    assert 1 <= slots.made <= 2
    blocks = {context.scratch.block.data_ptr() for e in engines for context in e.contexts}  # type: ignore[union-attr]  # each has one
    assert len(blocks) == slots.made
    assert slots.scratch_bytes == 4096


def test_a_caller_with_a_stream_keeps_it_and_its_slot(gpu: FakeGpu) -> None:
    engine = FakeEngine(gpu)
    slots = Slots([engine], most=4)
    lanes = [gpu.new_stream() for _ in range(2)]
    for _ in range(3):
        for lane in lanes:
            with gpu.stream(lane):
                call(slots)
    assert slots.made == 2
    assert [set(context.streams) for context in engine.contexts] == [{lane} for lane in lanes]


def test_a_slot_that_a_graph_has_recorded_is_set_aside(gpu: FakeGpu) -> None:
    engine = FakeEngine(gpu)
    slots = Slots([engine], most=1, timeout=0.05)
    with gpu.stream(gpu.new_stream()):
        gpu.capturing = True
        with pytest.raises(EngineError, match="call the model once before"):
            call(slots)
        gpu.capturing = False
        call(slots)
        gpu.capturing = True
        call(slots)
        gpu.capturing = False
        call(slots)
    assert len(engine.contexts) == 2
    assert len(engine.contexts[0].streams) == 2


@pytest.mark.parametrize(("slots", "requests"), [(8, 1000), (3, 100)])
def test_eight_threads_give_the_numbers_of_one(slots: int, requests: int) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), torch.nn.Sigmoid()
    ).eval()
    sizes = {2: torch.export.Dim("h", min=8, max=64), 3: torch.export.Dim("w", min=8, max=64)}
    compiled = fxtrt.compile(
        model,
        (torch.randn(1, 3, 16, 24),),
        engine="reference",
        dynamic_shapes=(sizes,),
        slots=slots,
    )
    draw = random.Random(0)
    inputs = [torch.randn(1, 3, draw.randint(8, 64), draw.randint(8, 64)) for _ in range(requests)]
    with torch.no_grad():
        expected = [compiled(x) for x in inputs]

        def request(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                result: torch.Tensor = compiled(x)
                return result

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(request, inputs))
    assert all(map(torch.equal, results, expected))
    (row,) = fxtrt.report(compiled).runtime
    assert row.fallbacks == ()
    assert 2 <= row.made <= slots


def test_the_protocol_of_a_fake_is_that_of_engines() -> None:
    engine: Engine = FakeEngine(None)
    assert engine.scratch_bytes == 512
