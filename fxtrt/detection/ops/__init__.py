"""Define the operators of detectors: each module defines the one that it is named after.

Functions that branch or loop over data cannot be traced. As one operator, with a fake that tells
the sizes of its results, each of them is one node of the graph, which runs in PyTorch.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

__all__ = ["define"]


def define(name: str) -> None:
    """Define the operator `fxtrt::name`, if there is one; its module is imported for that.

    Raises:
        ImportError: the operator calls a package that is not installed.
    """
    if name in {module.name for module in pkgutil.iter_modules(__path__)}:
        import_module(f"{__name__}.{name}")
