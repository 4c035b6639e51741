"""A server with real threads, under load and faults, loses and mixes up nothing, and then ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from serving_fakes import Picture, kind_of
from torch.cuda import OutOfMemoryError

import fxtrt
from fxtrt.errors import QueueFull, RequestTimeout, ServerClosed, WorkerDied

SOON = 20.0


class Erratic:
    """Answers pictures with their markers, sometimes late, and sometimes not at all."""

    def __init__(self, seed: int, faults: float = 0.1) -> None:
        self.runs: Counter[int] = Counter()
        self._random = random.Random(seed)
        self._faults = faults
        self._lock = threading.Lock()

    def __call__(self, pictures: list[Picture]) -> list[int]:
        with self._lock:
            self.runs.update(picture.marker for picture in pictures)
            chance, what = self._random.random(), self._random.randrange(4)
        if chance < self._faults:
            if what == 0:
                raise OutOfMemoryError("CUDA out of memory")
            if what == 1:
                raise SystemExit
            if what == 2:
                raise ValueError("a fault of the moment")
            time.sleep(0.02)
        time.sleep(0.0005)
        if any(picture.is_bad for picture in pictures):
            raise ValueError("a bad picture")
        return [picture.marker for picture in pictures]


def outcome(future: Future[Any], marker: int) -> str:
    """Wait for an outcome, and check that the answer is the one to this picture."""
    try:
        assert future.result(SOON) == marker
    except (CancelledError, *LOSSES) as error:
        return type(error).__name__
    return "answered"


LOSSES = (ValueError, OutOfMemoryError, WorkerDied, RequestTimeout, ServerClosed)


def client(server: fxtrt.Server, first: int, count: int, counts: Counter[str]) -> None:
    """Ask for many pictures, in bursts; cancel some, and give some no time."""
    rng, asked = random.Random(first), []
    for marker in range(first, first + count):
        picture = Picture(marker, rng.choice("ab"), rng.random() < 0.02)
        seconds = 0.003 if rng.random() < 0.1 else SOON
        try:
            future = server.submit(picture, timeout=seconds, priority=rng.randrange(3))
        except (QueueFull, ServerClosed) as error:
            counts[type(error).__name__] += 1
            time.sleep(0.001)
            continue
        asked.append((marker, future))
        if rng.random() < 0.1:
            future.cancel()
    counts.update(outcome(future, marker) for marker, future in asked)


def run_clients(server: fxtrt.Server, threads: int, count: int) -> Counter[str]:
    counts = [Counter[str]() for _ in range(threads)]
    running = [
        threading.Thread(target=client, args=(server, 10_000 * number, count, counts[number]))
        for number in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(2 * SOON)
    return sum(counts, Counter[str]())


@pytest.mark.parametrize("seed", [0, 1])
def test_many_threads_and_faults(seed: int) -> None:
    model = Erratic(seed)
    before = threading.active_count()
    with fxtrt.Server(
        model, workers=3, batch_by=kind_of, max_batch=4, max_delay=0.002, queue_size=32
    ) as server:
        counts = run_clients(server, 6, 400)
    assert sum(counts.values()) == 6 * 400
    assert counts["answered"] > 200
    assert {"ValueError", "CancelledError", "WorkerDied"} <= set(counts)
    assert counts.keys() - {"ServerClosed"} == counts.keys()
    health = server.health()
    assert (health.queued, health.running, health.workers_alive) == (0, 0, 0)
    assert threading.active_count() == before


@pytest.mark.parametrize("drain", [True, False])
def test_a_shutdown_under_load_ends_with_a_status_for_all(drain: bool) -> None:
    server = fxtrt.Server(Erratic(2, 0.02), workers=2, batch_by=kind_of, max_batch=4, queue_size=64)
    closer = threading.Timer(0.1, server.close, kwargs={"drain": drain, "timeout": SOON})
    closer.start()
    counts = run_clients(server, 4, 1500)
    closer.join(SOON)
    assert not closer.is_alive()
    assert sum(counts.values()) == 4 * 1500
    assert counts["answered"] > 0
    assert counts["ServerClosed"] > 0
    assert server.health().state == "closed"


def test_asyncio_clients() -> None:
    async def ask(server: fxtrt.Server, marker: int) -> None:
        while True:
            try:
                assert await server.infer(Picture(marker)) == marker
            except QueueFull as full:
                await asyncio.sleep(min(full.retry_after, 0.01))
            else:
                return

    async def impatient(server: fxtrt.Server, marker: int) -> None:
        try:
            await asyncio.wait_for(ask(server, marker), 0.0001)
        except asyncio.TimeoutError:
            gone.append(marker)

    async def all_of_them(server: fxtrt.Server) -> None:
        clients = [(impatient if i % 10 == 0 else ask)(server, i) for i in range(500)]
        await asyncio.gather(*clients)

    gone: list[int] = []
    model = Erratic(0, faults=0.0)
    with fxtrt.Server(model, workers=2, batch_by=kind_of, max_batch=8, queue_size=16) as server:
        asyncio.run(all_of_them(server))
    assert max(model.runs.values()) == 1
    assert set(range(500)) - set(gone) <= set(model.runs)
    assert gone


def test_a_server_that_is_still_open_drains_when_the_interpreter_ends() -> None:
    code = (
        "import time, fxtrt\n"
        "model = lambda images: time.sleep(0.05) or images\n"
        "server = fxtrt.Server(model, max_batch=1)\n"
        "for i in range(4):\n"
        "    server.submit(i).add_done_callback(lambda f: print(f.result(), flush=True))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["0", "1", "2", "3"]
    assert done.stderr == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_is_told_that_the_server_is_its_parents() -> None:
    with fxtrt.Server(lambda images: images) as server:
        assert server.submit(1).result(SOON) == 1
        child = multiprocessing.get_context("fork").Process(target=_in_child, args=(server,))
        child.start()
        child.join(SOON)
        assert child.exitcode == 0
        assert server.submit(2).result(SOON) == 2


def _in_child(server: fxtrt.Server) -> None:
    with pytest.raises(ServerClosed, match="parent process"):
        server.submit(3)
    assert server.close(timeout=1.0)
