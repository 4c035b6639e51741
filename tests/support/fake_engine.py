"""An engine without a network, whose contexts insist on what slots promise."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import torch
from gpu_model import FakeGpu, FakeStream

from fxtrt.engines.scratch import Scratch
from fxtrt.errors import EngineError
from fxtrt.graph.specs import TensorSpec

__all__ = ["FakeEngine"]


class FakeEngine:
    """An engine whose contexts insist that nobody else is using them, or their scratch memory."""

    inputs: Sequence[TensorSpec] = ()
    outputs: Sequence[TensorSpec] = ()
    scratch_by_shape = False

    def __init__(self, gpu: FakeGpu | None, scratch_bytes: int = 512, most: int = 99) -> None:
        self.device = None if gpu is None else torch.device("cpu")
        self.scratch_bytes = scratch_bytes
        self.most = most
        self.contexts: list[FakeContext] = []
        self.gpu = gpu
        self.last: dict[int, tuple[int, int]] = {}
        """By scratch block: when its last work ends."""

    def context(self, scratch: Scratch | None = None) -> FakeContext:
        if len(self.contexts) >= self.most:
            raise EngineError("no memory")
        if self.gpu is not None:
            assert scratch is not None
            assert scratch.block.nbytes >= self.scratch_bytes
        self.contexts.append(FakeContext(self, scratch))
        return self.contexts[-1]

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return self.context().run(tensors)


class FakeContext:
    def __init__(self, engine: FakeEngine, scratch: Scratch | None) -> None:
        self.engine, self.scratch = engine, scratch
        self.busy = threading.Lock()
        self.streams: list[FakeStream] = []

    def run(self, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        assert self.busy.acquire(blocking=False), "two threads in one context"
        time.sleep(random.random() / 1e3)
        if self.engine.gpu is not None and self.scratch is not None:
            stream = self.engine.gpu.current()
            assert stream.cuda_stream != 0, "work on the default stream"
            block = self.scratch.block.data_ptr()
            last = self.engine.last.get(block)
            assert last is None or stream.follows(last), "the scratch memory is in use"
            self.engine.last[block] = stream.work()
            self.streams.append(stream)
        self.busy.release()
        return tuple(tensors)
