"""Serves a compiled model for a while under changing load and faults, and measures what is left."""

from __future__ import annotations

import ctypes
import gc
import http.client
import os
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from http_server import http_server

import fxtrt
from fxtrt.serving.load import run_load
from fxtrt.serving.request import Request

__all__ = ["Left", "Sample", "slope", "soak"]

RATES = (30.0, 120.0, 10.0, 250.0, 60.0)
"""Requests in a second, phase by phase; the highest is too much."""
_SOON = 20.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds at the end of a phase.

    minutes: since the begin.
    memory:  resident memory in MB, after garbage was collected.
    """

    minutes: float
    memory: float
    threads: int
    descriptors: int


@dataclass(slots=True)
class Left:
    """What a soak has found.

    outcomes: of all requests in the process, by name; "answered" is one.
    over_http: the status of each request over HTTP, or "gone" if its client left.
    wrong:    answers that were not the one to their image.
    before, after: what the process held before and after all of it.
    requests: requests that are still in memory at the end.
    """

    samples: list[Sample] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    over_http: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    before: Sample | None = None
    after: Sample | None = None
    requests: int = 0


def slope(samples: Sequence[Sample]) -> float:
    """Return the growth of memory in MB a minute: the median over all pairs of samples."""
    return statistics.median(
        (b.memory - a.memory) / (b.minutes - a.minutes) for a, b in combinations(samples, 2)
    )


def soak(compiled: Any, images: Sequence[torch.Tensor], png: bytes, seconds: float) -> Left:
    """Serve `compiled`, in the process and over HTTP, with more threads than it has slots.

    Args:
        compiled: takes a batch of images.
        images: are sent in turns; their answers are known from before.
        png: is sent over HTTP.
    """
    left, began = Left(), time.monotonic()
    with torch.no_grad():
        expected = [_mean(compiled, image) for image in images]
    model = Faulty(compiled)
    left.before = _sample(began)
    phase = min(10.0, max(1.0, seconds / 60))
    device = _device(compiled)
    options: Any = {"workers": 3, "max_batch": 4, "queue_size": 64}
    if device.type == "cuda":
        options["device"] = device
    with http_server(model, **options) as (address, server):
        stop = threading.Event()
        client = threading.Thread(target=_ask_over_http, args=(address, png, left, stop))
        client.start()
        number = 0
        while time.monotonic() < began + seconds:
            submit = _erratic(server, random.Random(number))
            rate = RATES[number % len(RATES)]
            found = run_load(submit, images, rate, seconds=phase, warm_up=0.0, seed=number, keep=50)
            left.outcomes["answered"] += len(found.latencies)
            left.outcomes["QueueFull"] += found.refused
            left.outcomes.update(found.failed)
            for image, answer in found.answers:
                left.wrong += not torch.allclose(answer["mean"], expected[image], atol=1e-5)
            del found
            left.samples.append(_sample(began))
            number += 1
        stop.set()
        client.join(_SOON)
        assert not client.is_alive()
    del server, model
    left.after = _sample(began)
    left.requests = sum(type(one) is Request for one in gc.get_objects())
    return left


class Faulty:
    """Answers images one by one, unless it raises one of the faults of a GPU or of a program."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._random = random.Random(0)

    def __call__(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        chance = self._random.random()
        if chance < 0.02:
            raise ValueError("a fault of the moment")
        if chance < 0.04:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if chance < 0.045:
            raise SystemExit
        if chance < 0.06:
            time.sleep(0.1)
        time.sleep(0.005)
        return [{"mean": _mean(self._compiled, image)} for image in images]


def _mean(compiled: Any, image: torch.Tensor) -> torch.Tensor:
    mean: torch.Tensor = compiled(image.to(_device(compiled))[None]).mean()[None]
    return mean.cpu()


def _device(compiled: Any) -> torch.device:
    device: torch.device = next(compiled.parameters()).device
    return device


def _erratic(server: fxtrt.Server, rng: random.Random) -> Callable[[Any], Future[Any]]:
    """Return a client that cancels some requests, and gives some next to no time."""

    def submit(image: torch.Tensor) -> Future[Any]:
        seconds = 0.01 if rng.random() < 0.05 else _SOON
        future = server.submit(image, timeout=seconds, priority=rng.randrange(3))
        if rng.random() < 0.05:
            future.cancel()
        return future

    return submit


def _ask_over_http(address: str, png: bytes, left: Left, stop: threading.Event) -> None:
    """Ask again and again: as agreed, with junk, and as a client that leaves at once."""
    rng = random.Random(1)
    host, _, port = address.partition(":")
    while not stop.wait(0.02):
        chance = rng.random()
        if chance < 0.2:
            left.over_http["gone"] += 1
            _leave(host, int(port), png)
            continue
        connection = http.client.HTTPConnection(host, int(port), timeout=_SOON)
        body = png[: len(png) // 2] if chance < 0.4 else png
        connection.request("POST", "/detect", body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
        connection.close()
        left.over_http[str(response.status)] += 1


def _leave(host: str, port: int, png: bytes) -> None:
    """Send the begin of a request, and close the connection."""
    with socket.create_connection((host, port), timeout=_SOON) as client:
        head = f"POST /detect HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(png)}\r\n"
        client.sendall(head.encode() + b"Content-Type: image/png\r\n\r\n" + png[: len(png) // 3])


def _sample(began: float) -> Sample:
    gc.collect()
    _trim()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        (time.monotonic() - began) / 60,
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        threading.active_count(),
        len(os.listdir("/proc/self/fd")),
    )


def _trim() -> None:
    """Let glibc give back what is free, so that its reserves do not count as growth."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
