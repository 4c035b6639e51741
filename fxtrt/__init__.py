"""fxtrt: a graph-partitioning compiler backend that makes detectors fast on NVIDIA GPUs."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import errors

if TYPE_CHECKING:
    from . import detection
    from .ahead_of_time import compile, report, warm_up
    from .artifact import load, save
    from .context import Context
    from .registry import Rejection, converts, registered
    from .report import Coverage
    from .settings import Settings

__all__ = [
    "Context",
    "Coverage",
    "Rejection",
    "Settings",
    "compile",
    "converts",
    "detection",
    "errors",
    "load",
    "registered",
    "report",
    "save",
    "warm_up",
]

_HOMES = {
    "Context": "context",
    "Coverage": "report",
    "Rejection": "registry",
    "Settings": "settings",
    "compile": "ahead_of_time",
    "converts": "registry",
    "load": "artifact",
    "registered": "registry",
    "report": "ahead_of_time",
    "save": "artifact",
    "warm_up": "ahead_of_time",
}
"""The modules of the public names: importing them takes seconds, for torch's sake, so each waits
until it is asked for."""


class _Package(ModuleType):
    """The package, where `fxtrt.report` stays the function.

    Importing the subpackage of the same name would set the attribute to the subpackage.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "report" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if not TYPE_CHECKING:  # With it in sight, mypy would take any name for a public one.

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
