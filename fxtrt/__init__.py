"""fxtrt: a graph-partitioning compiler backend that makes detectors fast on NVIDIA GPUs."""

from . import errors
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
    "errors",
    "load",
    "registered",
    "report",
    "save",
    "warm_up",
]
