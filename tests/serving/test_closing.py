"""A server that closes settles all that it has accepted, and says in which state it is."""

from __future__ import annotations

import threading
import time

import pytest
from serving_fakes import (
    SOON,
    Clock,
    Faulty,
    Gate,
    MakeByHand,
    ask,
    kind_of,
)

import fxtrt
from fxtrt.errors import ServerClosed


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
