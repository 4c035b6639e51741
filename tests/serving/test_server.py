"""A server answers in batches, in order of priority, in bounded time, and says what it refuses."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest
import torch
from serving_fakes import ByHand, Clock, Faulty, Picture, kind_of

import fxtrt
from fxtrt.errors import (
    QueueFull,
    RequestTimeout,
    ServerClosed,
    ServingError,
    SettingsError,
    SlotTimeout,
    WorkerDied,
)

SOON = 5.0
MakeByHand = Callable[..., ByHand]


class Gate:
    """A model that stops in each run until it may go on."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.may_go = threading.Semaphore(0)
        self.batches: list[list[int]] = []

    def __call__(self, pictures: list[Picture]) -> list[int]:
        self.batches.append([picture.marker for picture in pictures])
        self.entered.release()
        assert self.may_go.acquire(timeout=SOON)
        return [picture.marker for picture in pictures]

    def enter(self) -> None:
        """Wait until a run has begun."""
        assert self.entered.acquire(timeout=SOON)

    def go(self, runs: int = 100) -> None:
        """Let runs end."""
        self.may_go.release(runs)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.go()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def model() -> Faulty:
    return Faulty()


@pytest.fixture
def by_hand(model: Faulty, clock: Clock) -> Iterator[MakeByHand]:
    made = []

    def make(**options: Any) -> ByHand:
        options = {"batch_by": kind_of, "clock": clock, "max_batch": 4, **options}
        made.append(ByHand(model, **options))
        return made[-1]

    yield make
    for server in made:
        server.close(drain=False, timeout=0.0)


def ask(server: fxtrt.Server, *markers: int, kind: str = "a", **options: Any) -> list[Future[Any]]:
    return [server.submit(Picture(marker, kind), **options) for marker in markers]


def markers(batch: list[Any] | None) -> list[int]:
    assert batch is not None
    return [request.image.marker for request in batch]


def test_an_idle_server_runs_a_request_at_once(gate: Gate) -> None:
    with fxtrt.Server(gate, max_delay=60.0) as server:
        (future,) = ask(server, 1)
        gate.enter()
        gate.go()
        assert future.result(SOON) == 1


def test_a_batch_forms_while_the_one_before_runs(gate: Gate) -> None:
    with fxtrt.Server(gate, batch_by=kind_of, max_batch=3) as server:
        futures = ask(server, 0)
        gate.enter()
        futures += ask(server, 1, 2, 3, 4)
        gate.go()
        assert [future.result(SOON) for future in futures] == [0, 1, 2, 3, 4]
    assert gate.batches == [[0], [1, 2, 3], [4]]


def test_a_batch_waits_for_others_only_while_something_runs(
    by_hand: MakeByHand, clock: Clock
) -> None:
    server = by_hand(workers=2, max_delay=0.5)
    ask(server, 0)
    first = server.take(0)
    assert first
    ask(server, 1, timeout=30.0)
    assert server.take(1) == []
    clock.now += 0.4
    ask(server, 2)
    assert server.take(1) == []
    clock.now += 0.11
    second = server.take(1)
    assert markers(second) == [1, 2]
    ask(server, 3)
    server.serve(0, first)
    server.serve(1, second or [])
    assert markers(server.take(0)) == [3]


def test_a_full_batch_waits_for_nothing(by_hand: MakeByHand) -> None:
    server = by_hand(workers=3, max_delay=60.0)
    ask(server, 0)
    assert server.take(0)
    ask(server, 1, kind="b")
    ask(server, 2, 3, 4, 5)
    assert markers(server.take(1)) == [2, 3, 4, 5]
    assert server.take(2) == []


def test_no_request_waits_longer_for_others_than_half_its_time(
    by_hand: MakeByHand, clock: Clock
) -> None:
    server = by_hand(workers=2, max_delay=60.0)
    ask(server, 0)
    assert server.take(0)
    ask(server, 1, timeout=1.0)
    clock.now += 0.5
    assert markers(server.take(1)) == [1]


def test_images_of_other_shapes_are_in_other_batches() -> None:
    sizes = []

    def model(images: list[torch.Tensor]) -> list[Any]:
        sizes.append({image.shape for image in images})
        return [image.shape for image in images]

    images = [torch.zeros(3, height, 4) for height in (4, 5, 4, 5, 4)]
    for batch_by, most in (("shape", 1), ("any", 2)):
        sizes.clear()
        with fxtrt.Server(model, batch_by=batch_by) as server:
            futures = [server.submit(image) for image in images for _ in range(20)]
            assert [f.result(SOON) for f in futures] == [i.shape for i in images for _ in range(20)]
        assert max(map(len, sizes)) == most


def test_detectron2_images_batch_by_the_shape_of_their_image(
    by_hand: MakeByHand,
) -> None:
    server = by_hand(batch_by="shape")
    for height in (4, 4, 5):
        server.submit({"image": torch.zeros(3, height, 4), "height": height * 2, "width": 9})
    assert [len(server.take(0) or []), len(server.take(0) or [])] == [2, 1]


def test_priorities_come_first_and_nobody_waits_for_ever(by_hand: MakeByHand, clock: Clock) -> None:
    server = by_hand(max_batch=1, aging=0.1)
    ask(server, 0)
    ask(server, 1, priority=5)
    ask(server, 2, priority=-1)
    assert [markers(server.take(0)) for _ in range(3)] == [[1], [0], [2]]
    ask(server, 3)
    clock.now += 0.6  # More than five steps of priority are worth.
    ask(server, 4, priority=5)
    assert [markers(server.take(0)) for _ in range(2)] == [[3], [4]]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(
    by_hand: MakeByHand, clock: Clock
) -> None:
    server = by_hand(queue_size=4, max_batch=1)
    for marker in range(10):  # Ten requests per second.
        ask(server, marker)
        server.serve(0, server.take(0) or [])
        clock.now += 0.1
    ask(server, 10, 11, 12, 13)
    with pytest.raises(QueueFull, match="queue_size is 4") as refused:
        ask(server, 14)
    assert refused.value.retry_after == pytest.approx(0.4, rel=0.2)
    assert refused.value.status == 503
    server.take(0)
    ask(server, 14)


def test_a_request_that_timed_out_in_the_queue_is_not_run(
    by_hand: MakeByHand, clock: Clock, model: Faulty
) -> None:
    server = by_hand()
    late, good = [*ask(server, 0, timeout=1.0), *ask(server, 1, timeout=2.0)]
    clock.now += 1.0
    server.expire()
    with pytest.raises(RequestTimeout, match="within 1 s: the request was in the queue"):
        late.result(0)
    server.serve(0, server.take(0) or [])
    assert good.result(0) == ("answer to", 1)
    assert model.runs == [(1,)]


def test_a_request_that_times_out_while_it_runs_frees_its_caller(gate: Gate) -> None:
    with fxtrt.Server(gate) as server:
        (future,) = ask(server, 0, timeout=0.05)
        gate.enter()
        with pytest.raises(RequestTimeout, match="in the model"):
            future.result(SOON)
        gate.go()
    assert future.exception() is not None


def test_a_timeout_needs_no_worker(gate: Gate) -> None:
    with fxtrt.Server(gate) as server:
        ask(server, 0)
        gate.enter()
        (waiting,) = ask(server, 1, timeout=0.05)
        with pytest.raises(RequestTimeout, match="in the queue"):
            waiting.result(SOON)
        assert server.health().queued == 0
        gate.go()
    assert gate.batches == [[0]]


def test_a_jump_of_the_wall_clock_changes_nothing(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fxtrt.Server(gate, timeout=20.0) as server:
        running, waiting = ask(server, 0, 1)
        gate.enter()
        for jump in (-1e9, 1e9):
            monkeypatch.setattr(time, "time", lambda at=jump: at)
            time.sleep(0.01)
            assert not running.done()
            assert not waiting.done()
        gate.go()
        assert (running.result(SOON), waiting.result(SOON)) == (0, 1)


def test_a_cancelled_request_leaves_the_queue(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand(queue_size=2)
    first, second = ask(server, 0, 1)
    assert first.cancel()
    assert server.health().queued == 1
    assert wait([first], timeout=0).done == {first}
    ask(server, 2)
    server.serve(0, server.take(0) or [])
    assert model.runs == [(1, 2)]
    assert not second.cancel()


def test_one_bad_image_fails_alone(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand()
    futures = [server.submit(Picture(marker, is_bad=marker == 2)) for marker in range(4)]
    server.serve(0, server.take(0) or [])
    with pytest.raises(ValueError, match="picture 2 is bad"):
        futures[2].result(0)
    assert [f.result(0)[1] for f in futures if f is not futures[2]] == [0, 1, 3]
    assert model.runs == [(0, 1, 2, 3), (0,), (1,), (2,), (3,)]


def test_a_batch_without_memory_runs_in_halves(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand()
    futures = ask(server, 0, 1, 2, 3)
    model.fault = "memory"
    server.serve(0, server.take(0) or [])
    assert [future.result(0)[1] for future in futures] == [0, 1, 2, 3]
    assert model.runs == [(0, 1, 2, 3), (0, 1), (2, 3)]


def test_a_failed_request_keeps_no_tensor_of_the_batch(by_hand: MakeByHand) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    class Failing:
        def __call__(self, images: list[Any]) -> list[Any]:
            scratch = torch.zeros(10)
            seen.append(weakref.ref(scratch))
            raise ValueError("no")

    server = ByHand(Failing(), workers=1)
    images = [torch.zeros(1), torch.zeros(1)]
    seen += map(weakref.ref, images)
    futures = [server.submit(image) for image in images]
    server.serve(0, server.take(0) or [])
    del images
    assert [type(future.exception(0)) for future in futures] == [ValueError] * 2
    assert [one() for one in seen] == [None] * len(seen)
    server.close(timeout=0.0)


def test_a_device_that_fails_ends_the_server(by_hand: MakeByHand, model: Faulty) -> None:
    server = by_hand(workers=2, max_batch=1)
    ran, elsewhere, waiting = ask(server, 0, 1, 2)
    batch, other = server.take(0), server.take(1)
    model.fault = "device"
    server.serve(0, batch or [])
    for future in (ran, elsewhere, waiting):
        with pytest.raises(WorkerDied, match="device-side assert") as died:
            future.result(0)
        assert "device-side" in str(died.value.__cause__)
    assert (server.ready, server.live) == (False, False)
    with pytest.raises(ServerClosed, match="needs a new process"):
        ask(server, 3)
    server.serve(1, other or [])  # What the other worker still finishes is dropped.
    assert server.close(timeout=1.0)


def test_a_thread_that_is_to_end_fails_its_batch_and_lives_on(model: Faulty) -> None:
    with fxtrt.Server(model, batch_by=kind_of) as server:
        model.fault = "thread"
        (lost,) = ask(server, 0)
        with pytest.raises(WorkerDied, match="SystemExit"):
            lost.result(SOON)
        (next_one,) = ask(server, 1)
        assert next_one.result(SOON) == ("answer to", 1)
        assert server.health().workers_alive == 1
        assert server.live


def test_a_thread_interrupted_between_queue_and_model_loses_nothing(
    model: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fxtrt.Server(model, batch_by=kind_of) as server:
        serve, interrupts = server._workers[0].serve, [KeyboardInterrupt("now")]

        def interrupted(batch: list[Any]) -> None:
            if interrupts:
                raise interrupts.pop()
            serve(batch)

        monkeypatch.setattr(server._workers[0], "serve", interrupted)
        with pytest.raises(WorkerDied, match="KeyboardInterrupt"):
            ask(server, 0)[0].result(SOON)
        assert ask(server, 1)[0].result(SOON) == ("answer to", 1)
    assert server.health().running == 0


def test_waiting_for_a_slot_is_not_tried_again_for_each_image() -> None:
    runs = []

    def model(images: list[Any]) -> list[Any]:
        runs.append(len(images))
        raise SlotTimeout("none of the 4 slots became free in 60 s")

    server = ByHand(model, workers=1)
    futures = [server.submit(torch.zeros(1)) for _ in range(3)]
    server.serve(0, server.take(0) or [])
    assert runs == [3]
    assert all(isinstance(future.exception(0), SlotTimeout) for future in futures)
    server.close(timeout=0.0)


@pytest.mark.parametrize("answers", [[1], [1, 2, 3], {"boxes": 1}, None, 7])
def test_a_model_that_answers_another_number_of_images_fails(answers: Any) -> None:
    with fxtrt.Server(lambda images: answers if len(images) > 1 else []) as server:
        server.submit(torch.zeros(1))
        futures = [server.submit(torch.zeros(1)) for _ in range(2)]
        for future in futures:
            with pytest.raises(ServingError, match="one answer for each"):
                future.result(SOON)


def test_a_callback_that_raises_harms_nobody_else(by_hand: MakeByHand) -> None:
    server = by_hand()
    first, second = ask(server, 0, 1)

    def leave(_: Future[Any]) -> None:
        raise SystemExit

    first.add_done_callback(leave)
    server.serve(0, server.take(0) or [])
    assert [first.result(0)[1], second.result(0)[1]] == [0, 1]


def test_draining_answers_what_was_accepted(gate: Gate) -> None:
    server = fxtrt.Server(gate, batch_by=kind_of, max_batch=1)
    futures = ask(server, 0, 1, 2)
    gate.enter()
    closers = [threading.Thread(target=server.close) for _ in range(3)]
    for closer in closers:
        closer.start()
    while server.ready:
        time.sleep(0.001)
    assert server.live
    with pytest.raises(ServerClosed, match="is closed"):
        ask(server, 3)
    gate.go()
    for closer in closers:
        closer.join(SOON)
    assert [future.result(0) for future in futures] == [0, 1, 2]
    assert server.close()
    assert server.health().state == "closed"
    assert server.health().workers_alive == 0
    assert not any(thread.is_alive() for thread in server._threads)


def test_closing_without_draining_answers_only_what_runs(gate: Gate) -> None:
    server = fxtrt.Server(gate, max_batch=1)
    running, waiting = ask(server, 0, 1)
    gate.enter()
    closer = threading.Thread(target=lambda: server.close(drain=False))
    closer.start()
    with pytest.raises(ServerClosed):
        waiting.result(SOON)
    gate.go()
    closer.join(SOON)
    assert running.result(0) == 0


def test_a_drain_that_takes_too_long_fails_the_rest(gate: Gate) -> None:
    server = fxtrt.Server(gate, max_batch=1)
    futures = ask(server, 0, 1)
    gate.enter()
    assert not server.close(timeout=0.05)
    for future in futures:
        with pytest.raises(ServerClosed, match=r"no answer after 0.05 s"):
            future.result(0)
    gate.go()


def test_a_server_may_be_closed_from_its_own_thread(model: Faulty) -> None:
    server = fxtrt.Server(model, batch_by=kind_of)
    closed: list[bool] = []
    model.during = lambda: time.sleep(0.01)
    (future,) = ask(server, 0)
    future.add_done_callback(lambda _: closed.append(server.close()))
    assert future.result(SOON)
    assert server.close(timeout=SOON)
    assert closed in ([False], [True])  # True if the callback was added after the answer.


def test_an_error_in_the_block_drops_what_waits(gate: Gate) -> None:
    with pytest.raises(KeyError), fxtrt.Server(gate, max_batch=1) as server:  # noqa: PT012
        _, waiting = ask(server, 0, 1)
        gate.enter()
        gate.go()
        waiting.add_done_callback(lambda _: None)
        raise KeyError
    assert not server.ready
    assert waiting.done()


def test_a_task_that_is_cancelled_takes_its_request_along(gate: Gate) -> None:
    async def client(server: fxtrt.Server) -> None:
        task = asyncio.create_task(server.infer(Picture(1)))
        while not server.health().queued:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.health().queued == 0

    with fxtrt.Server(gate) as server:
        ask(server, 0)
        gate.enter()
        asyncio.run(client(server))
        gate.go()
    assert gate.batches == [[0]]


def test_health_says_what_the_server_does(by_hand: MakeByHand, clock: Clock) -> None:
    server = by_hand(max_batch=1)
    ask(server, 0, 1, 2)
    server.serve(0, server.take(0) or [])
    batch = server.take(0)
    server._workers[0]._start(batch or [])
    clock.now += 3.0
    health = server.health()
    assert (health.ready, health.queued, health.running) == (True, 1, 1)
    assert health.last_success == pytest.approx(3.0)
    assert health.longest_run == pytest.approx(3.0)


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"max_batch": 1.5},
        {"queue_size": True},
        {"max_delay": -1.0},
        {"max_delay": float("nan")},
        {"timeout": 0.0},
        {"timeout": float("nan")},
        {"aging": float("inf")},
        {"batch_by": "size"},
    ],
)
def test_a_wrong_setting_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=next(iter(options))):
        fxtrt.Server(list, **options)


@pytest.mark.parametrize("options", [{"timeout": -1.0}, {"priority": 101}, {"priority": 0.5}])
def test_a_wrong_option_of_a_request_is_refused(
    by_hand: MakeByHand, options: dict[str, Any]
) -> None:
    server = by_hand()
    with pytest.raises(SettingsError, match=next(iter(options))):
        ask(server, 0, **options)
    assert server.health().queued == 0


def test_cancelled_error_is_what_a_cancelled_future_raises(by_hand: MakeByHand) -> None:
    (future,) = ask(by_hand(), 0)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(0)
