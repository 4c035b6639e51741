"""One INetworkDefinition under construction, with all that must outlive it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

import torch

from ..errors import EngineUnavailable
from .features import Features

__all__ = ["Network", "TensorSpec", "collect_errors", "create_network", "logger_for"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of an engine; a dimension is static where low equals high.

    A high of None means that the dimension has no upper bound, a device of None any device.
    """

    name: str
    dtype: torch.dtype
    low: tuple[int, ...]
    optimum: tuple[int, ...]
    high: tuple[int | None, ...]
    device: torch.device | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape with -1 for each dynamic dimension, as TensorRT writes it."""
        return tuple(a if a == b else -1 for a, b in zip(self.low, self.high, strict=True))

    @property
    def is_static(self) -> bool:
        return self.low == self.high

    def mismatch(self, tensor: torch.Tensor) -> str | None:
        """Why `tensor` cannot be bound here, or None."""
        if tensor.dtype != self.dtype:
            return f"{self.name} is {tensor.dtype}, expected {self.dtype}"
        if self.device is not None and tensor.device != self.device:
            return f"{self.name} is on {tensor.device}, expected {self.device}"
        fits = len(self.low) == tensor.dim() and all(
            low <= size and (high is None or size <= high)
            for low, size, high in zip(self.low, tensor.shape, self.high, strict=True)
        )
        if fits:
            return None
        return f"{self.name} has shape {tuple(tensor.shape)}, expected {self.describe()}"

    def describe(self) -> str:
        """The shape for people: "1x3x(256..1024)x640"."""
        dims = (
            str(low) if low == high else f"({low}..{'' if high is None else high})"
            for low, high in zip(self.low, self.high, strict=True)
        )
        return "x".join(dims) or "scalar"


@dataclass
class Network:
    """A network, its builder, and the memory that its layers point into.

    weights: values of CONSTANT layers that cannot be read back (bfloat16), by layer name.
    types:   the type of tensors that do not know it themselves: see `engines/precision.py`.
    """

    features: Features
    builder: Any
    definition: Any
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    types: dict[Any, Any] = field(default_factory=dict)

    @property
    def trt(self) -> ModuleType:
        return self.features.trt


def create_network(features: Features) -> Network:
    """An empty network: strongly typed wherever this TensorRT can, with explicit batch."""
    trt = features.trt
    builder = trt.Builder(logger_for(trt))
    flag = trt.NetworkDefinitionCreationFlag
    name = "EXPLICIT_BATCH" if features.weakly_typed else "STRONGLY_TYPED"
    definition = builder.create_network(1 << int(getattr(flag, name)))
    if definition is None:
        raise EngineUnavailable(f"{features.version} could not create a network")
    return Network(features, builder, definition)


_collectors = threading.local()


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """TensorRT's error messages on this thread, while the block runs."""
    messages: list[str] = []
    outer = getattr(_collectors, "messages", None)
    _collectors.messages = messages
    try:
        yield messages
    finally:
        _collectors.messages = outer


@cache
def logger_for(trt: ModuleType) -> Any:
    """The one logger of a TensorRT module: routes to `logging` and to `collect_errors`."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.INFO,
        trt.ILogger.Severity.INFO: logging.DEBUG,
        trt.ILogger.Severity.VERBOSE: logging.NOTSET,
    }

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]  # a run-time module
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            level = levels[severity]
            if level == logging.ERROR:
                # Without a driver every error is followed by this one, which says nothing.
                if "Cuda Runtime" in message:
                    return
                collected = getattr(_collectors, "messages", None)
                if collected is not None:
                    collected.append(message)
                    level = logging.DEBUG
            if level:
                log.log(level, "%s", message)

    return Logger()
