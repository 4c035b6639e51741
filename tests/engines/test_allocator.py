"""An output whose size TensorRT learns while it runs, played through without a GPU."""

from __future__ import annotations

from ctypes import memmove
from typing import Any

import pytest
import torch

from fxtrt.engines.allocator import output_allocator
from fxtrt.engines.base import EngineBackend
from fxtrt.errors import EngineError


@pytest.fixture
def allocator(reference: EngineBackend) -> Any:
    return output_allocator(reference.features.trt, torch.device("cpu"))


def test_the_output_is_what_was_written_and_no_more(allocator: Any) -> None:
    values = torch.arange(6, dtype=torch.int32)
    address = allocator.reallocate_output("y0", 0, 400, 256)
    memmove(address, values.data_ptr(), 24)
    allocator.notify_shape("y0", (2, 3))
    assert torch.equal(allocator.tensor(torch.int32), values.reshape(2, 3))


def test_an_empty_output_has_an_address(allocator: Any) -> None:
    assert allocator.reallocate_output_async("y0", 0, 0, 256, 0) != 0
    allocator.notify_shape("y0", (0, 3))
    assert allocator.tensor(torch.int64).shape == (0, 3)


def test_a_size_that_was_never_told_is_an_error(allocator: Any) -> None:
    allocator.reallocate_output("y0", 0, 64, 256)
    with pytest.raises(EngineError, match="did not say what size"):
        allocator.tensor(torch.float32)
