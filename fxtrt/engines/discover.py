"""Find and import the TensorRT module of this machine."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Sequence
from types import ModuleType

import torch

from ..errors import EngineUnavailable

__all__ = ["TENSORRT", "TENSORRT_RTX", "available", "import_tensorrt"]

log = logging.getLogger(__name__)

TENSORRT = ("tensorrt",)
TENSORRT_RTX = ("tensorrt_rtx", "tensorrt_rtx_bindings")
"""The modules of TensorRT-RTX; its wheels-only installation has `tensorrt_rtx_bindings` alone."""


def available(names: Sequence[str]) -> ModuleType | None:
    """Return the first module among `names` that can be imported here, or None."""
    for name in names:
        if name in TENSORRT and not torch.cuda.is_available():
            # TensorRT's Builder aborts the process where there is no CUDA driver.
            log.debug("%s is not tried: CUDA is not available", name)
        elif importlib.util.find_spec(name) is None:
            log.debug("%s is not installed", name)
        elif (module := _load(name)) is not None:
            return module
    return None


def import_tensorrt() -> ModuleType:
    """Return a module that can hold networks: `tensorrt` if there is a GPU, else TensorRT-RTX.

    Raises:
        EngineUnavailable: no such module is installed, or none can be imported.
    """
    names = (*TENSORRT, *TENSORRT_RTX)
    module = available(names)
    if module is None:
        raise EngineUnavailable(
            f"none of {', '.join(names)} can be imported: `pip install tensorrt-rtx` works on any "
            f"machine; `tensorrt` also needs an NVIDIA GPU and its driver"
        )
    return module


def _load(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        log.warning("%s is installed but does not import: %s", name, error)
        return None
