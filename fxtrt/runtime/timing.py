"""Times a cluster as an engine and in PyTorch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from typing_extensions import Self

from .engine_module import EngineModule
from .slot import Slot

__all__ = ["Race", "Timing", "measure", "race"]

_WARM_UP, _RUNS = 3, 10


class _Kept:
    """Times that are kept as JSON beside a plan."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()  # type: ignore[call-overload]  # a dataclass

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class Timing(_Kept):
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


@dataclass(frozen=True, slots=True)
class Race(_Kept):
    """The medians of what one call of a cluster takes in int8 and in float16, in milliseconds."""

    int8_ms: float
    fp16_ms: float


def race(
    int8: EngineModule,
    fp16: EngineModule,
    inputs: Sequence[Any],
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Time the engines of one cluster in int8 and in float16; arguments are those of `measure`."""

    def in_slots(slot: Slot) -> tuple[float, float]:
        return fp16.slots.run(lambda _: _medians(int8, fp16, inputs, clock))

    with torch.no_grad():
        return Race(*int8.slots.run(in_slots))


def measure(
    module: EngineModule, inputs: Sequence[Any], clock: Callable[[], float] = time.perf_counter
) -> Timing:
    """Time `module`, whose engine takes `inputs`, against its fallback.

    The two are called in turn, so that a change of the machine's speed affects both. Taking a slot
    is not part of the time, because a call of a model takes one slot for all clusters.

    Args:
        clock: returns seconds.
    """
    with torch.no_grad():
        return Timing(*module.slots.run(lambda _: _medians(module, module.fallback, inputs, clock)))


def _medians(
    first: Callable[..., Any],
    second: Callable[..., Any],
    inputs: Sequence[Any],
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Return the milliseconds of each of two calls, which are made in turn."""
    times: tuple[list[float], list[float]] = [], []
    for _ in range(_WARM_UP + _RUNS):
        times[0].append(_milliseconds(first, inputs, clock))
        times[1].append(_milliseconds(second, inputs, clock))
    return median(times[0][_WARM_UP:]), median(times[1][_WARM_UP:])


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
