"""Streams and events as clocks, without a GPU: they know which work is sure to follow which."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

__all__ = ["FakeGpu", "FakeStream"]


class FakeStream:
    """A stream: its clock counts, for each stream, the work that surely ends before its next."""

    def __init__(self, gpu: FakeGpu, number: int) -> None:
        self.gpu, self.cuda_stream = gpu, number
        self.device = torch.device("cpu", 0)
        self.clock: Counter[int] = Counter()

    def work(self) -> tuple[int, int]:
        """Enqueue something; the moment at which it is done."""
        with self.gpu.lock:
            self.clock[self.cuda_stream] += 1
            return self.cuda_stream, self.clock[self.cuda_stream]

    def follows(self, moment: tuple[int, int]) -> bool:
        """Whether what is enqueued next starts after `moment`."""
        number, count = moment
        return self.clock[number] >= count

    def wait_event(self, event: FakeEvent) -> None:
        with self.gpu.lock:
            self.clock |= event.clock

    def wait_stream(self, other: FakeStream) -> None:
        with self.gpu.lock:
            self.clock |= other.clock

    def synchronize(self) -> None:
        pass


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.clock: Counter[int] = Counter()

    def record(self, stream: FakeStream) -> None:
        with self.gpu.lock:
            self.clock = Counter(stream.clock)


class FakeGpu:
    """Takes the place of what fxtrt asks of `torch.cuda`; each thread has its current stream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lock = threading.Lock()
        self.capturing = False
        self._streams = [FakeStream(self, 0)]
        self._current = threading.local()
        for name, fake in {
            "Stream": lambda device=None: self.new_stream(),
            "Event": lambda: FakeEvent(self),
            "current_stream": lambda device=None: self.current(),
            "current_device": lambda: 0,
            "stream": self.stream,
            "is_current_stream_capturing": lambda: self.capturing,
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def new_stream(self) -> FakeStream:
        with self.lock:
            self._streams.append(FakeStream(self, len(self._streams)))
            return self._streams[-1]

    def current(self) -> FakeStream:
        stream: FakeStream = getattr(self._current, "stream", self._streams[0])
        return stream

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before = self.current()
        self._current.stream = stream
        try:
            yield
        finally:
            self._current.stream = before
