"""Names that the documents use and that the coming move of the modules makes; remove it then."""

from __future__ import annotations

import importlib
import sys
import types
from functools import cache

from markdown_files import ROOT

__all__ = ["RENAMED", "provide_new_names"]

_MODULES = {
    "fxtrt.diagnostics.bisect": "fxtrt.bisect",
    "fxtrt.detection.symbolic_len": "fxtrt.detection.lengths",
}
RENAMED = {"ComponentPlan": "Recipe", "plan_of": "recipe_of", "planned": "with_equivalents"}
"""Of `fxtrt.detection`."""


@cache
def provide_new_names() -> None:
    """Let the documents' blocks run on today's modules; does nothing once these have moved."""
    if (ROOT / "fxtrt" / "diagnostics").exists():
        return
    package = types.ModuleType("fxtrt.diagnostics")
    package.__path__ = []
    sys.modules[package.__name__] = package
    for new, old in _MODULES.items():
        sys.modules[new] = importlib.import_module(old)
    detection = importlib.import_module("fxtrt.detection")
    for before, after in RENAMED.items():
        setattr(detection, after, getattr(detection, before))
