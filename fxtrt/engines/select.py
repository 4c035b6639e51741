"""Choose the engine backend that `Settings.engine` names, or the best one of this machine."""

from __future__ import annotations

import logging
from functools import cache

import torch

from ..errors import EngineUnavailable
from .base import EngineBackend
from .reference import ReferenceBackend
from .tensorrt import TensorRTBackend

__all__ = ["select"]

log = logging.getLogger(__name__)


def select(engine: str) -> EngineBackend:
    """Return the backend for `Settings.engine`.

    Raises:
        EngineUnavailable: the requested engine (for "auto": every engine) is not installed, or does
            not support this machine's GPU. The message tells what to install.
    """
    return _automatic() if engine == "auto" else _backend(engine)


@cache
def _backend(engine: str) -> EngineBackend:
    return ReferenceBackend() if engine == "reference" else TensorRTBackend(engine)


@cache
def _automatic() -> EngineBackend:
    if torch.cuda.is_available():
        for engine in ("tensorrt", "tensorrt_rtx"):
            try:
                return _backend(engine)
            except EngineUnavailable as error:
                log.info("engine %s is not available: %s", engine, error)
    backend = _backend("reference")
    log.warning(
        "no TensorRT can run here: the reference engine executes the networks with PyTorch, "
        "which checks them and does not make them fast"
    )
    return backend
