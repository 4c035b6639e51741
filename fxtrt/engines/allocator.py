"""Allocate memory for an engine's output whose size TensorRT learns while it runs."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch

from ..errors import EngineError

__all__ = ["output_allocator"]


def output_allocator(trt: ModuleType, device: torch.device) -> Any:
    """Return an `IOutputAllocator` for one output of one run, in torch's memory on `device`.

    Its `tensor(dtype)` returns the output. Call it after TensorRT's `execute_async_v3`, which waits
    until the size is known.
    """

    class OutputAllocator(trt.IOutputAllocator):  # type: ignore[misc, name-defined]  # a run-time module
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self._memory = torch.empty(0, dtype=torch.uint8, device=device)
            self._shape: tuple[int, ...] | None = None

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            # An address of 0 would mean failure to TensorRT, so one byte is the least. torch aligns
            # to 512 bytes; TensorRT asks for 256.
            self._memory = torch.empty(max(size, 1), dtype=torch.uint8, device=device)
            return self._memory.data_ptr()

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            self._shape = tuple(shape)

        def tensor(self, dtype: torch.dtype) -> torch.Tensor:
            if self._shape is None:
                raise EngineError("TensorRT did not say what size an output has")
            size = math.prod(self._shape) * dtype.itemsize
            return self._memory[:size].view(dtype).reshape(self._shape)

    return OutputAllocator()
