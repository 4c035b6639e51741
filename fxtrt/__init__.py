"""fxtrt turns the convertible parts of PyTorch models, mainly detectors, into TensorRT engines."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from . import detection
    from .accuracy.gate import Gate
    from .ahead_of_time import (
        compile,
        report,
        warm_up,
    )
    from .artifact.save_load import load, save
    from .conversion.context import Context
    from .engines.known_bad import known_bad
    from .registry import (
        Rejection,
        converts,
        registered,
    )
    from .reporting.coverage import Coverage
    from .serving.server import Server
    from .settings import Settings

__all__ = [
    "Context",
    "Coverage",
    "Gate",
    "Rejection",
    "Server",
    "Settings",
    "compile",
    "converts",
    "detection",
    "errors",
    "known_bad",
    "load",
    "registered",
    "report",
    "save",
    "warm_up",
]

_HOMES = {
    "Context": "conversion.context",
    "Coverage": "reporting.coverage",
    "Gate": "accuracy.gate",
    "Rejection": "registry",
    "Server": "serving.server",
    "Settings": "settings",
    "compile": "ahead_of_time",
    "converts": "registry",
    "known_bad": "engines.known_bad",
    "load": "artifact.save_load",
    "registered": "registry",
    "report": "ahead_of_time",
    "save": "artifact.save_load",
    "warm_up": "ahead_of_time",
}
"""The modules of the public names. Importing them takes seconds, because they import torch, so each
is imported when one of its names is first used."""


if not TYPE_CHECKING:  # If mypy saw this function, it would accept any name.

    def __getattr__(name: str) -> Any:
        if name == "detection":
            return import_module(".detection", __name__)
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
