"""Times a cluster as an engine and in PyTorch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch

from .engine_module import EngineModule
from .slot import Slot

__all__ = ["Timing", "measure"]

_WARM_UP, _RUNS = 3, 10


@dataclass(frozen=True, slots=True)
class Timing:
    """The medians of what one call of a cluster takes, with the copies of its inputs and outputs.

    engine_ms:  milliseconds in its engine.
    pytorch_ms: milliseconds in PyTorch.
    """

    engine_ms: float
    pytorch_ms: float

    @property
    def wins(self) -> bool:
        """Return whether the engine is faster."""
        return self.engine_ms < self.pytorch_ms

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Timing:
        return cls(**json.loads(data))


def measure(
    module: EngineModule, inputs: Sequence[Any], clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Time `module`, whose engine takes `inputs`, against its fallback.

    The two are called in turn, so that a change of the machine's speed affects both. Taking a slot
    is not part of the time, because a call of a model takes one slot for all clusters.

    Args:
        clock: returns seconds.
    """
    engine: list[float] = []
    pytorch: list[float] = []

    def in_turn(slot: Slot) -> None:
        for _ in range(_WARM_UP + _RUNS):
            engine.append(_milliseconds(module, inputs, clock))
            pytorch.append(_milliseconds(module.fallback, inputs, clock))

    with torch.no_grad():
        module.slots.run(in_turn)
    return Timing(median(engine[_WARM_UP:]), median(pytorch[_WARM_UP:]))


def _milliseconds(
    function: Callable[..., Any], inputs: Sequence[Any], clock: Callable[[], float]
) -> float:
    _wait(inputs)
    start = clock()
    function(*inputs)
    _wait(inputs)
    return (clock() - start) * 1e3


def _wait(inputs: Sequence[Any]) -> None:
    for device in {value.device for value in inputs if isinstance(value, torch.Tensor)}:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
