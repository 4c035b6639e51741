"""A server refuses what is too much, drops what is too late, and takes no wrong setting."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import wait
from typing import Any

import pytest
from serving_fakes import (
    SOON,
    Clock,
    Faulty,
    Gate,
    MakeByHand,
    Picture,
    ask,
)

import fxtrt
from fxtrt.errors import QueueFull, RequestTimeout, SettingsError


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
