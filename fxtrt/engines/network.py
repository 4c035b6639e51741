"""Create an empty INetworkDefinition, and hold all that must outlive it."""

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
from ..graph.specs import TensorSpec
from .features import Features

__all__ = ["Network", "collect_errors", "create_network", "logger_for"]

log = logging.getLogger(__name__)


@dataclass
class Network:
    """A network, its builder, and the memory that its layers point into.

    weights: values of CONSTANT layers that cannot be read back (bfloat16), by layer name.
    types:   the types of tensors whose own dtype is not reliable (`engines/weak_typing.py`).
    free:    the tensors of a weakly typed network that may be int8, as TensorRT chooses, with
             whether a DEQUANTIZE gives them.
    kept:    objects that the network points into, which live as long as it.
    """

    features: Features
    builder: Any
    definition: Any
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    types: dict[Any, Any] = field(default_factory=dict)
    free: dict[Any, bool] = field(default_factory=dict)

    @property
    def trt(self) -> ModuleType:
        return self.features.trt


def create_network(features: Features) -> Network:
    """Return an empty network, strongly typed if this TensorRT can, with explicit batch."""
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
    """Collect TensorRT's error messages on this thread while the block runs."""
    messages: list[str] = []
    outer = getattr(_collectors, "messages", None)
    _collectors.messages = messages
    try:
        yield messages
    finally:
        _collectors.messages = outer


@cache
def logger_for(trt: ModuleType) -> Any:
    """Return the one logger of a TensorRT module, for `logging` and `collect_errors`."""
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
                # Without a driver this message follows every error, and adds nothing to it.
                if "Cuda Runtime" in message:
                    return
                collected = getattr(_collectors, "messages", None)
                if collected is not None:
                    collected.append(message)
                    level = logging.DEBUG
            if level:
                log.log(level, "%s", message)

    return Logger()
